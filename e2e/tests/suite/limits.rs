//! Three services have limits of prompts, each its own: what the first one lets pass, the last one must take.

use mobula_e2e::{Mesh, draw, prompt};
use mobula_kit::status::violations;
use mobula_proto::image::v1::{GenerateRequest, PromptSyntax};
use tonic::Code;

/// Words of a window of CLIP, start and end token not counted.
const WORDS: usize = 75;
/// Windows of one text at most.
const WINDOWS: usize = 16;

fn written(syntax: PromptSyntax, text: &str, steps: u32) -> GenerateRequest {
    GenerateRequest {
        prompt_syntax: syntax.into(),
        steps: Some(steps),
        guidance_scale: Some(7.5),
        ..prompt(text, 5)
    }
}

/// Two texts that change at each of `steps`, with as many windows as a text may have.
fn changing(steps: u32) -> GenerateRequest {
    let long = "a ".repeat(WORDS * WINDOWS);
    GenerateRequest {
        negative_prompt: "[c|d]".into(),
        ..written(PromptSyntax::A1111, &format!("[{long}|b]"), steps)
    }
}

fn nested(depth: usize) -> GenerateRequest {
    let text = format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    written(PromptSyntax::A1111, &text, 2)
}

#[tokio::test]
async fn what_the_door_and_the_tokenizer_let_pass_is_drawn() -> anyhow::Result<()> {
    let mesh = Mesh::builder().start().await?;
    let a1111 = |text: &str, steps| written(PromptSyntax::A1111, text, steps);
    let compel = |text: &str| written(PromptSyntax::Compel, text, 2);
    for (what, request) in [
        ("weights of 1000", a1111("(a:1000) b (c:-1000)", 2)),
        ("weights of 1000", compel("(a)1000 b")),
        ("16 windows", a1111(&"a ".repeat(WORDS * WINDOWS), 2)),
        ("2048 windows in all", changing(64)),
        ("another text at each of 1000 steps", a1111("[a|b]", 1000)),
        ("16 variants", compel(&"(a)0.5 b ".repeat(15))),
        ("brackets 32 deep", nested(32)),
        (
            "65536 bytes",
            written(PromptSyntax::Plain, &"a ".repeat(32_768), 2),
        ),
    ] {
        let drawn = draw(&mesh.client(), request).await;
        let drawn = drawn.map_err(|status| anyhow::anyhow!("{what}: {status:?}"))?;
        drawn.picture()?;
    }
    mesh.stop().await
}

#[tokio::test]
async fn what_is_beyond_a_limit_is_told_with_its_value_and_the_limit() -> anyhow::Result<()> {
    let mesh = Mesh::builder().start().await?;
    let a1111 = |text: &str, steps| written(PromptSyntax::A1111, text, steps);
    for (request, field, value, limit) in [
        (a1111("(a:1001)", 2), "prompt", "1001", "1000"),
        (
            a1111(&"a ".repeat(WORDS * WINDOWS + 1), 2),
            "prompt",
            "17 windows",
            "16",
        ),
        (changing(65), "texts", "2080 windows", "2048"),
        (nested(33), "prompt", "33 deep", "32"),
        (
            written(PromptSyntax::Plain, &"a".repeat(65_537), 2),
            "prompt",
            "65537",
            "65536",
        ),
        (a1111("a", 1001), "steps", "1001", "1000"),
        (
            GenerateRequest {
                width: Some(100),
                ..a1111("a", 2)
            },
            "width",
            "100",
            "8",
        ),
    ] {
        let status = draw(&mesh.client(), request).await.expect_err(limit);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let told = violations(&status);
        assert!(
            told.len() == 1 && told[0].0 == field && told[0].1.contains(value) && told[0].1.contains(limit),
            "{field}, {value}, {limit}: {told:?}"
        );
    }
    mesh.stop().await
}
