//! A preprocess worker that makes tokens of bytes and pixels of one colour.

use std::sync::{Arc, Mutex};

use mobula_proto::{
    common::v1::{Pixels, Prompt, PromptSpan, PromptVariant, PromptWindow},
    preprocess::v1::{
        ImageKind, PrepareImageRequest, PrepareImageResponse, TokenizeRequest, TokenizeResponse,
        TokenizedText, preprocess_service_server::PreprocessService,
    },
};
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
pub(crate) struct Preprocess {
    pub(crate) texts: Arc<Mutex<Vec<TokenizeRequest>>>,
    pub(crate) files: Arc<Mutex<Vec<PrepareImageRequest>>>,
}

/// A file that the fake cannot read, though it begins as a PNG does.
pub(crate) fn broken_png(width: u32, height: u32) -> bytes::Bytes {
    [&png(width, height)[..], b"broken"].concat().into()
}

/// A file as far as the proxy looks into it.
pub(crate) fn png(width: u32, height: u32) -> bytes::Bytes {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    file.extend(width.to_be_bytes());
    file.extend(height.to_be_bytes());
    file.into()
}

/// What the fake makes of a file.
pub(crate) fn pixels(width: u32, height: u32, kind: ImageKind) -> Pixels {
    let (channels, value) = match kind {
        ImageKind::Mask => (1, 255),
        ImageKind::Transparency => (1, 254),
        ImageKind::Picture | ImageKind::Unspecified => (3, 7),
    };
    let bytes = width * height * channels;
    Pixels {
        width,
        height,
        data: vec![value; bytes as usize].into(),
    }
}

#[tonic::async_trait]
impl PreprocessService for Preprocess {
    async fn tokenize(
        &self,
        request: Request<TokenizeRequest>,
    ) -> Result<Response<TokenizeResponse>, Status> {
        let request = request.into_inner();
        self.texts.lock().unwrap().push(request.clone());
        let texts = request.texts.into_iter().map(|text| TokenizedText {
            prompt: Some(encoded(&text)),
            token_count: 77,
            truncated_count: 0,
            truncated_text: if text.len() > 77 {
                text[77..].to_owned()
            } else {
                String::new()
            },
        });
        Ok(Response::new(TokenizeResponse {
            texts: texts.collect(),
        }))
    }

    async fn prepare_image(
        &self,
        request: Request<PrepareImageRequest>,
    ) -> Result<Response<PrepareImageResponse>, Status> {
        let request = request.into_inner();
        self.files.lock().unwrap().push(request.clone());
        if request.data.ends_with(b"broken") {
            return Err(mobula_kit::status::invalid("data", "ends too early"));
        }
        let pixels = pixels(request.width, request.height, request.kind());
        Ok(Response::new(PrepareImageResponse { pixels: Some(pixels) }))
    }
}

/// A text's tokens: its bytes, one window. `a@5|b` is a text that is `a` until step 5, then `b`.
pub(crate) fn encoded(text: &str) -> Prompt {
    let span = |part: &str| {
        let (text, until_step) = part.split_once('@').unwrap_or((part, "0"));
        let window = PromptWindow {
            ids: text.bytes().map(u32::from).collect(),
            ..PromptWindow::default()
        };
        let variant = PromptVariant {
            weight: 1.0,
            windows: vec![window],
        };
        PromptSpan {
            until_step: until_step.parse().unwrap(),
            variants: vec![variant],
        }
    };
    Prompt {
        spans: text.split('|').map(span).collect(),
        ..Prompt::default()
    }
}
