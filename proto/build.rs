//! Compiles the `.proto` files with protox, so that no protoc is needed on the machine.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 9] = [
    "inference/grpc_service.proto",
    "inference/model_config.proto",
    "mobula/common/v1/common.proto",
    "mobula/control/v1/control.proto",
    "mobula/control/v1/serve.proto",
    "mobula/image/v1/image.proto",
    "mobula/inference/v1/inference.proto",
    "mobula/preprocess/v1/preprocess.proto",
    "ray/serve/serve.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=inference");
    println!("cargo:rerun-if-changed=mobula");
    println!("cargo:rerun-if-changed=ray");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let set = protox::compile(FILES, ["."])?;
    fs::write(out.join("mobula.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".mobula")
        .bytes(".inference")
        .compile_fds(set)?;
    Ok(())
}
