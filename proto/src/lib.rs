//! Mobula's contracts: the messages and services of the mesh, generated from `proto/mobula/<area>/v1/*.proto`.
//!
//! Nothing here decides anything. Generated code lives in `OUT_DIR`; the `.proto` files are the source of truth and
//! carry the documentation.

/// Every file of the contracts as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mobula.bin"));

/// What several areas share: tensors, timings.
pub mod common {
    /// Package `mobula.common.v1`.
    pub mod v1 {
        tonic::include_proto!("mobula.common.v1");
    }
}

/// The public image API.
pub mod image {
    /// Package `mobula.image.v1`.
    pub mod v1 {
        tonic::include_proto!("mobula.image.v1");
    }
}

/// What the preprocess service offers to the proxy.
pub mod preprocess {
    /// Package `mobula.preprocess.v1`.
    pub mod v1 {
        tonic::include_proto!("mobula.preprocess.v1");
    }
}

/// What the inference service offers to the proxy.
pub mod inference {
    /// Package `mobula.inference.v1`.
    pub mod v1 {
        tonic::include_proto!("mobula.inference.v1");
    }
}

/// What workers, proxies and people say to the controller.
pub mod control {
    /// Package `mobula.control.v1`.
    pub mod v1 {
        tonic::include_proto!("mobula.control.v1");
    }
}

/// What Ray Serve's own clients call.
pub mod ray {
    /// Package `ray.serve`.
    pub mod serve {
        tonic::include_proto!("ray.serve");
    }
}

/// The Open Inference Protocol with Triton's extensions: package `inference`, whose name here leaves that one to the mesh's
/// own service.
pub mod oip {
    tonic::include_proto!("inference");
}
