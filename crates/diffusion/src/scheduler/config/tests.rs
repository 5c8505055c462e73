use super::*;
use crate::Sampler;

#[test]
fn placeholder_is_replaced() {}
