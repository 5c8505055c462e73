//! Replicas that load nothing, for workers of tests.

use mobula_kit::{
    async_trait,
    worker::{Failure, Load, Loader, ModelInfo, Replica, ReplicaSpec},
};

/// A replica that does nothing, well.
pub(crate) struct Nothing;

impl Replica for Nothing {
    fn load(&self) -> Load {
        Load::default()
    }
    fn model(&self) -> Option<ModelInfo> {
        None
    }
    fn health(&self) -> Result<(), String> {
        Ok(())
    }
    fn retire(&self) {}
}

/// Loads [`Nothing`], and refuses the model `broken` as the engine refuses one without its UNet.
pub(crate) struct Loads;

#[async_trait]
impl Loader for Loads {
    type Replica = Nothing;
    async fn load(&self, spec: &ReplicaSpec) -> Result<Nothing, Failure> {
        if spec.model == "broken" {
            Err(Failure::permanent("unet/model.onnx is missing"))
        } else {
            Ok(Nothing)
        }
    }
}
