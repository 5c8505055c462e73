//! The stages that have one answer: texts and pictures to numbers.

use bytes::Bytes;
use mobula_proto::common::v1::{DataType, Tensor};
use mobula_proto::inference::v1::{
    EncodeRequest, EncodeResponse, EncodeTextRequest, EncodeTextResponse, EncodedText, Moments, TextWindow,
};
use tokio::time::Instant;

use super::Placed;
use crate::engine::{Encoded, Error};
use crate::runner::Output;

/// Up to here numbers become bytes on the async threads: it takes less than waking another thread.
const INLINE_BYTES: usize = 1 << 20;

/// Encodes windows of text.
pub(super) async fn encode_text(
    placed: Placed,
    request: EncodeTextRequest,
    deadline: Option<Instant>,
) -> Result<EncodeTextResponse, Error> {
    let ([tokens, width], pooled) = placed.model().widths();
    let inbox = placed.told(placed.model().encode_text(&request, deadline))?;
    let answer = placed.told(inbox.answer().await)?;
    let Output::Texts(states) = answer.result else {
        return Err(mistaken());
    };
    let text = move |window: TextWindow, encoded: &Encoded| EncodedText {
        window: Some(window),
        states: Some(tensor(&[tokens, width], &encoded.states)),
        pooled: (pooled > 0).then(|| tensor(&[pooled], &encoded.pooled)),
    };
    let bytes = size_of::<f32>() * tokens * width * request.windows.len();
    let all = move || {
        let each = request.windows.into_iter().zip(states);
        each.map(|(window, encoded)| text(window, &encoded)).collect()
    };
    let texts = converted(bytes, all).await?;
    Ok(EncodeTextResponse {
        texts,
        timings: Some(answer.timings),
        load: Some(placed.lease.load()),
    })
}

/// Encodes a picture.
pub(super) async fn encode(
    placed: Placed,
    request: &EncodeRequest,
    deadline: Option<Instant>,
) -> Result<EncodeResponse, Error> {
    let (inbox, shape) = placed.told(placed.model().encode(request, deadline))?;
    let answer = placed.told(inbox.answer().await)?;
    let Output::Moments(moments) = answer.result else {
        return Err(mistaken());
    };
    let pictures = moments.mean.len() / shape.values().max(1);
    let sides = [pictures, shape.channels, shape.height, shape.width];
    let told = Moments {
        mean: Some(tensor(&sides, &moments.mean)),
        deviation: (!moments.deviation.is_empty()).then(|| tensor(&sides, &moments.deviation)),
    };
    Ok(EncodeResponse {
        moments: Some(told),
        timings: Some(answer.timings),
        load: Some(placed.lease.load()),
    })
}

/// Makes messages of many numbers, elsewhere where it takes long.
async fn converted<T: Send + 'static>(
    bytes: usize,
    make: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    if bytes <= INLINE_BYTES {
        return Ok(make());
    }
    let made = tokio::task::spawn_blocking(make).await;
    made.map_err(|error| Error::Failed(format!("telling states panicked: {error}")))
}

/// The loop answers every task with what it is for.
fn mistaken() -> Error {
    Error::Failed("the engine answered another question".to_owned())
}

fn tensor(shape: &[usize], values: &[f32]) -> Tensor {
    let mut data = Vec::with_capacity(size_of_val(values));
    for value in values {
        data.extend_from_slice(&value.to_le_bytes());
    }
    Tensor {
        data_type: DataType::Fp32.into(),
        shape: shape.iter().map(|side| *side as u64).collect(),
        data: Bytes::from(data),
    }
}
