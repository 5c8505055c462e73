use super::*;

#[test]
fn providers_are_read_by_name_and_wrong_ones_are_refused_with_the_list() {
    let mut providers = Providers::parse("cuda, CPUExecutionProvider").unwrap();
    assert_eq!(providers.full_name(), "CUDAExecutionProvider");
    assert!(providers.depends_on_batch() && !providers.records_graphs());
    assert!(providers.set("cuda.device_id", "1").unwrap());
    assert!(providers.set("cuda.enable_cuda_graph", "true").unwrap());
    assert!(providers.records_graphs());
    assert_eq!(providers.device().unwrap().1, 1);
    assert_eq!(providers.arenas(), "cpu:0;gpu:1");
    assert!(!providers.set("tile_above", "1").unwrap());
    for (key, value, word) in [
        ("cuda.speed", "1", "cudnn_conv_algo_search"),
        ("cuda.device_id", "first", "no value"),
        ("cuda.cudnn_conv_algo_search", "BEST", "no value"),
        ("rocm.device_id", "0", "not among the providers"),
    ] {
        let error = providers.set(key, value).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(word), "{error}");
    }
    assert!(
        Providers::parse("gpu")
            .unwrap_err()
            .to_string()
            .contains("cuda, tensorrt")
    );
    assert!(Providers::parse("cpu,cpu").is_err() && Providers::parse(" ").is_err());
    assert!(!Providers::default().depends_on_batch());
}
