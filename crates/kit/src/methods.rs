//! The metric handles of every gRPC method that a server has, made once from the contracts.
//!
//! Labels come from the descriptors alone: a path that they do not know is counted as `other`, so that no caller can
//! make labels.

use std::{collections::HashMap, sync::OnceLock};

use metrics::{Counter, Histogram, counter, histogram};
use prost::Message;
use tokio::time::Instant;
use tonic::Code;

use crate::{
    metrics::{GRPC_REQUESTS, GRPC_SECONDS, GRPC_STARTED},
    status::CODES,
};

/// All methods by path, `/package.Service/Method`.
#[derive(Debug)]
pub(crate) struct Methods {
    known: HashMap<String, &'static Method>,
    other: &'static Method,
}

/// One method's names and handles.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) service: String,
    pub(crate) method: String,
    /// Callers send a stream of messages, which may idle.
    pub(crate) is_stream: bool,
    started: Counter,
    seconds: Histogram,
    ended: [OnceLock<Counter>; CODES.len()],
}

impl Methods {
    /// Takes the methods of `services` from the descriptor sets.
    pub(crate) fn new(sets: &[&[u8]], services: &[&'static str]) -> Self {
        let mut known = HashMap::new();
        for set in sets {
            // Sets are compiled in; one that cannot be read is refused by reflection, which reads them too.
            let set = Set::decode(*set).unwrap_or_default();
            for file in set.file {
                for service in file.service {
                    let name = format!("{}.{}", file.package, service.name);
                    if services.contains(&name.as_str()) {
                        for method in service.method {
                            let path = format!("/{name}/{}", method.name);
                            known.entry(path).or_insert_with(|| Method::leak(&name, &method));
                        }
                    }
                }
            }
        }
        Self {
            known,
            // Refused without a look at what it sends.
            other: Method::leak(
                "other",
                &MethodNames {
                    name: "other".to_owned(),
                    client_streaming: false,
                },
            ),
        }
    }

    pub(crate) fn of(&self, path: &str) -> &'static Method {
        self.known.get(path).copied().unwrap_or(self.other)
    }
}

impl Method {
    /// One per method, service and process: kept for good, so that a request needs no reference count for it.
    fn leak(service: &str, method: &MethodNames) -> &'static Self {
        static ALL: OnceLock<std::sync::Mutex<HashMap<String, &'static Method>>> = OnceLock::new();
        let all = ALL.get_or_init(Default::default);
        let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.entry(format!("{service}/{}", method.name))
            .or_insert_with(|| Box::leak(Box::new(Self::new(service, method))))
    }

    fn new(service: &str, names: &MethodNames) -> Self {
        let (service, method) = (service.to_owned(), names.name.clone());
        Self {
            is_stream: names.client_streaming,
            started: counter!(GRPC_STARTED, "service" => service.clone(), "method" => method.clone()),
            seconds: histogram!(GRPC_SECONDS, "service" => service.clone(), "method" => method.clone()),
            ended: Default::default(),
            service,
            method,
        }
    }

    /// Counts a request in; the guard counts it out.
    pub(crate) fn start(&'static self) -> Guard {
        self.started.increment(1);
        Guard {
            method: self,
            begun: Instant::now(),
            code: None,
        }
    }

    fn end(&self, code: Code, seconds: f64) {
        let ended = self.ended[code as usize].get_or_init(|| {
            let (service, method) = (self.service.clone(), self.method.clone());
            counter!(GRPC_REQUESTS, "service" => service, "method" => method, "code" => crate::status::name(code))
        });
        ended.increment(1);
        self.seconds.record(seconds);
    }
}

/// A request in flight. Dropped without a code, its caller has left: it counts as CANCELLED.
#[derive(Debug)]
pub(crate) struct Guard {
    method: &'static Method,
    begun: Instant,
    code: Option<Code>,
}

impl Guard {
    /// Notes how the request ended; the first word counts.
    pub(crate) fn finish(&mut self, code: Code) {
        self.code.get_or_insert(code);
    }

    /// The code noted, or CANCELLED.
    pub(crate) fn code(&self) -> Code {
        self.code.unwrap_or(Code::Cancelled)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.method.end(self.code(), self.begun.elapsed().as_secs_f64());
    }
}

/// The part of `google.protobuf.FileDescriptorSet` that names services and methods, and says what they are sent.
#[derive(Clone, PartialEq, prost::Message)]
struct Set {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    service: Vec<ServiceNames>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServiceNames {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<MethodNames>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MethodNames {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "5")]
    client_streaming: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_come_from_the_contracts_and_everything_else_is_other() {
        let methods = Methods::new(
            &[mobula_proto::FILE_DESCRIPTOR_SET],
            &["mobula.control.v1.ServeService"],
        );
        for (name, is_stream) in [("GetStatus", false), ("Backup", false), ("Restore", true)] {
            let method = methods.of(&format!("/mobula.control.v1.ServeService/{name}"));
            assert_eq!(method.is_stream, is_stream, "{name}");
        }
        let status = methods.of("/mobula.control.v1.ServeService/GetStatus");
        assert_eq!(
            (status.service.as_str(), status.method.as_str()),
            ("mobula.control.v1.ServeService", "GetStatus")
        );
        for path in ["/mobula.control.v1.ControlService/Attach", "/made/up", ""] {
            assert_eq!(methods.of(path).service, "other", "{path}");
        }
    }
}
