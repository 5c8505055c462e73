//! More proxies beside the one of `mobula up`: each can be killed, and is started again where it was, as a supervisor does.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::Context;
use mobula_kit::channel;
use mobula_proto::image::v1::ListModelsRequest;
use mobula_proto::image::v1::image_service_client::ImageServiceClient;
use tokio::process::{Child, Command};

use crate::doors::Doors;
use crate::process::{Up, binary, free_ports};
use crate::wait::until;

/// The proxies of a mesh; the first is that of `mobula up`, which starts it again itself.
#[derive(Debug)]
pub struct Proxies {
    /// Where each speaks gRPC.
    addresses: Vec<SocketAddr>,
    more: Vec<More>,
    doors: Doors,
}

/// One that this test supervises.
#[derive(Debug)]
struct More {
    /// HTTP and admin.
    ports: [SocketAddr; 2],
    child: Child,
}

impl Proxies {
    /// Starts so many more, and waits until each answers.
    ///
    /// # Errors
    /// When one does not start or does not answer.
    pub async fn start(up: &Up, more: usize) -> anyhow::Result<Self> {
        let mut addresses = vec![up.grpc()];
        let mut all = Vec::with_capacity(more);
        for _ in 0..more {
            let [grpc, http, admin] = free_ports()?;
            let ports = [http, admin];
            let child = spawn(up, grpc, ports)?;
            addresses.push(grpc);
            all.push(More { ports, child });
        }
        let http = std::iter::once(up.http()).chain(all.iter().map(|more| more.ports[0]));
        let clients = addresses.iter().zip(http).map(|(address, http)| {
            let client = ImageServiceClient::new(channel::lazy(&address.to_string())?);
            Ok((client, Some(http)))
        });
        let doors = Doors::new(clients.collect::<anyhow::Result<Vec<_>>>()?);
        let proxies = Self {
            addresses,
            more: all,
            doors,
        };
        for index in 0..=more {
            proxies
                .back(index)
                .await
                .map_err(|error| error.context(up.output()))?;
        }
        Ok(proxies)
    }

    /// The way to them.
    #[must_use]
    pub fn doors(&self) -> Doors {
        self.doors.clone()
    }

    /// Kills one as `kill -9` does; it is started again at once. Callers are told first.
    ///
    /// # Errors
    /// When it is gone already, or cannot be started again.
    pub async fn kill(&mut self, up: &Up, index: usize) -> anyhow::Result<()> {
        self.doors.falls(index);
        let Some(more) = index.checked_sub(1) else {
            let ours: Vec<_> = self.more.iter().filter_map(|more| more.child.id()).collect();
            let all = up.named("mobula-proxy").into_iter();
            let mut own =
                all.filter(|process| u32::try_from(process.pid).is_ok_and(|pid| !ours.contains(&pid)));
            return own.next().context("the proxy of mobula up")?.kill();
        };
        let grpc = self.addresses[index];
        let more = self.more.get_mut(more).context("a proxy by this number")?;
        more.child.kill().await?;
        more.child = spawn(up, grpc, more.ports)?;
        Ok(())
    }

    /// Waits until one answers with what can be drawn, and says so to the callers.
    pub fn back(&self, index: usize) -> impl Future<Output = anyhow::Result<()>> + Send + use<> {
        let (address, doors) = (self.addresses[index].to_string(), self.doors.clone());
        async move {
            until("a proxy that answers", || async {
                // A connection of its own each time: a process that dies is not asked again by mistake.
                let mut client = ImageServiceClient::new(channel::lazy(&address).ok()?);
                client.list_models(ListModelsRequest {}).await.ok().map(drop)
            })
            .await?;
            doors.stands(index);
            Ok(())
        }
    }
}

fn spawn(up: &Up, grpc: SocketAddr, [http, admin]: [SocketAddr; 2]) -> anyhow::Result<Child> {
    let (name, mark) = up.mark();
    let log = std::fs::OpenOptions::new().create(true).append(true).open(
        up.state_dir()
            .join("logs")
            .join(format!("proxy-{}.log", grpc.port())),
    )?;
    Command::new(binary("mobula-proxy")?)
        .args(["--listen", &grpc.to_string(), "--http-listen", &http.to_string()])
        .args(["--admin-listen", &admin.to_string()])
        .args(["--controller", &up.controller().to_string()])
        .env(name, mark)
        .envs(up.variables().iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("mobula-proxy")
}
