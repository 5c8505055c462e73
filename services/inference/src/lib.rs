//! The inference service: text encoder, UNet and VAE on ONNX Runtime, batched step by step.
