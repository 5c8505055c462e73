//! The flags of TLS, and what a process makes of them at its start.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    client::Client,
    live::Live,
    material::{Files, Use},
    server::Server,
};
use crate::{Error, Stop};

/// How often files are looked at: a renewed certificate is in use long before the old one ends, and reading some small
/// files costs microseconds. Files of Kubernetes change by a link that is swapped, which no notification of a file shows.
const LOOK: Duration = Duration::from_secs(5);

/// What a process needs to dial others of a mesh.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct ClientArgs {
    /// Dial with TLS and trust certificates of these authorities (PEM); where TLS is used without this, those of the system
    #[arg(long, value_name = "FILE", env = "MOBULA_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Certificate of this process, with its chain (PEM): shown at its ports, and to those it dials. The file is read again
    /// when it changes
    #[arg(long, value_name = "FILE", env = "MOBULA_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(long, value_name = "FILE", env = "MOBULA_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Name that certificates must have of those who are dialled, where their addresses are not in them (pods, containers)
    #[arg(long, value_name = "NAME", env = "MOBULA_TLS_SERVER_NAME")]
    pub tls_server_name: Option<String>,
}

/// TLS inside a mesh: every port that is no door for users, and every dialled connection.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    pub client: ClientArgs,
    /// Demand of callers a certificate of these authorities (PEM): mutual TLS
    #[arg(
        long,
        value_name = "FILE",
        env = "MOBULA_TLS_CLIENT_CA",
        requires = "tls_cert"
    )]
    pub tls_client_ca: Option<PathBuf>,
    /// How metrics and probes are served once there is a certificate: as the other ports, or for those who have no
    /// certificate to show (Kubernetes' probes, many scrapers), or plain
    #[arg(long, env = "MOBULA_ADMIN_TLS", value_enum, default_value_t = AdminTls::Mutual)]
    pub admin_tls: AdminTls,
}

/// How the admin port is served.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminTls {
    /// As the other ports: with --tls-client-ca, callers must show a certificate.
    #[default]
    Mutual,
    /// TLS, and nobody has to show a certificate.
    Server,
    /// Plain.
    Off,
}

impl AdminTls {
    /// As it is written on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Mutual => "mutual",
            Self::Server => "server",
            Self::Off => "off",
        }
    }
}

/// TLS at the doors for users, where it is not that of the mesh.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
#[group(skip)]
pub struct PublicArgs {
    /// Certificate of the doors for users, with its chain (PEM); by default that of --tls-cert
    #[arg(
        long,
        value_name = "FILE",
        env = "MOBULA_PUBLIC_TLS_CERT",
        requires = "public_tls_key"
    )]
    pub public_tls_cert: Option<PathBuf>,
    /// Key of that certificate (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "MOBULA_PUBLIC_TLS_KEY",
        requires = "public_tls_cert"
    )]
    pub public_tls_key: Option<PathBuf>,
    /// Demand of users a certificate of these authorities (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "MOBULA_PUBLIC_TLS_CLIENT_CA",
        requires = "public_tls_cert"
    )]
    pub public_tls_client_ca: Option<PathBuf>,
    /// Leave the doors for users plain though --tls-cert is given: a balancer in front ends TLS
    #[arg(long, env = "MOBULA_PUBLIC_PLAINTEXT", conflicts_with = "public_tls_cert",
          value_parser = clap::builder::FalseyValueParser::new())]
    pub public_plaintext: bool,
}

/// TLS of a process as its flags say, with the files read.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    pub(super) live: Option<Arc<Live>>,
    admin: AdminTls,
}

impl ClientArgs {
    /// Reads the files once, for a command that is over soon. None when nothing is given.
    ///
    /// # Errors
    /// [`Error::Tls`] names the file and what is wrong with it.
    pub fn open(&self) -> Result<Option<Client>, Error> {
        let live = self
            .files(None)
            .map(|files| Live::open(Use::Mesh, files))
            .transpose()?;
        Ok(live.map(|live| Client::new(Arc::new(live))))
    }

    /// Trusts what the system trusts, for an address that says `https` where no flag was given.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of_system() -> Result<Client, Error> {
        Live::open(Use::Mesh, Files::default()).map(|live| Client::new(Arc::new(live)))
    }

    fn files(&self, client_ca: Option<&Path>) -> Option<Files> {
        (self.tls_cert.is_some() || self.tls_ca.is_some()).then(|| Files {
            own: self.tls_cert.clone().zip(self.tls_key.clone()),
            client_ca: client_ca.map(Path::to_owned),
            ca: self.tls_ca.clone(),
            server_name: self.tls_server_name.clone(),
        })
    }
}

impl Args {
    /// Reads the files and begins to watch them.
    ///
    /// # Errors
    /// [`Error::Tls`] names the file and what is wrong with it.
    pub fn open(&self, stop: &Stop) -> Result<Tls, Error> {
        let files = self.client.files(self.tls_client_ca.as_deref());
        let live = files.map(|files| watched(Use::Mesh, files, stop)).transpose()?;
        Ok(Tls {
            live,
            admin: self.admin_tls,
        })
    }

    /// The same flags as variables, for a process that is started by this one.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let client = &self.client;
        let mut variables = paths([
            ("MOBULA_TLS_CA", &client.tls_ca),
            ("MOBULA_TLS_CERT", &client.tls_cert),
            ("MOBULA_TLS_KEY", &client.tls_key),
            ("MOBULA_TLS_CLIENT_CA", &self.tls_client_ca),
        ]);
        let name = client.tls_server_name.as_ref();
        variables.extend(name.map(|name| ("MOBULA_TLS_SERVER_NAME", name.into())));
        variables.push(("MOBULA_ADMIN_TLS", self.admin_tls.name().into()));
        variables
    }
}

impl PublicArgs {
    /// How the doors for users are served; the mesh's own way where nothing else is said.
    ///
    /// # Errors
    /// As [`Args::open`].
    pub fn open(&self, mesh: &Tls, stop: &Stop) -> Result<Option<Server>, Error> {
        if self.public_plaintext {
            return Ok(None);
        }
        let Some(own) = self.public_tls_cert.clone().zip(self.public_tls_key.clone()) else {
            return Ok(mesh.ports());
        };
        let files = Files {
            own: Some(own),
            client_ca: self.public_tls_client_ca.clone(),
            ..Files::default()
        };
        Ok(Some(Server::new(watched(Use::Public, files, stop)?, true)))
    }

    /// The same flags as variables, for a process that is started by this one.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = paths([
            ("MOBULA_PUBLIC_TLS_CERT", &self.public_tls_cert),
            ("MOBULA_PUBLIC_TLS_KEY", &self.public_tls_key),
            ("MOBULA_PUBLIC_TLS_CLIENT_CA", &self.public_tls_client_ca),
        ]);
        if self.public_plaintext {
            variables.push(("MOBULA_PUBLIC_PLAINTEXT", "true".into()));
        }
        variables
    }
}

impl Tls {
    /// How ports are served that are neither doors for users nor the admin port; none is plain.
    pub fn ports(&self) -> Option<Server> {
        let live = self.live.as_ref().filter(|live| live.is_server())?;
        Some(Server::new(Arc::clone(live), true))
    }

    /// How the admin port is served.
    pub fn admin(&self) -> Option<Server> {
        match self.admin {
            AdminTls::Mutual => self.ports(),
            AdminTls::Server => self.ports().map(|server| server.for_anybody()),
            AdminTls::Off => None,
        }
    }

    /// How others of the mesh are dialled; none is plain.
    pub fn client(&self) -> Option<Client> {
        self.live.clone().map(Client::new)
    }
}

fn watched(of: Use, files: Files, stop: &Stop) -> Result<Arc<Live>, Error> {
    let live = Arc::new(Live::open(of, files)?);
    let watching = Arc::clone(&live);
    stop.spawn_aside(async move { watching.watch(LOOK).await });
    Ok(live)
}

fn paths<const N: usize>(given: [(&'static str, &Option<PathBuf>); N]) -> Vec<(&'static str, OsString)> {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).into();
    let given = given.into_iter();
    given
        .filter_map(|(name, path)| path.as_ref().map(|path| (name, absolute(path))))
        .collect()
}
