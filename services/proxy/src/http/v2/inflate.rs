//! Bodies that came compressed, within a number of bytes. Pure but for giving way to others between pieces.

use std::io::{self, Write};

use flate2::write::{GzDecoder, ZlibDecoder};

/// Bytes that are unpacked before others have their turn: a thousand times as many at most, half a millisecond.
const PIECE: usize = 512;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    /// gzip.
    Gzip,
    /// zlib's format, which HTTP calls deflate.
    Deflate,
}

/// Why a body could not be unpacked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It has more bytes than may be.
    TooLarge,
    /// It is not what it says.
    Broken,
}

/// Takes what is unpacked, up to a limit.
struct Capped {
    data: Vec<u8>,
    limit: usize,
    is_over: bool,
}

impl Write for Capped {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.limit - self.data.len() < data.len() {
            self.is_over = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.data.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder {
    Gzip(GzDecoder<Capped>),
    Deflate(ZlibDecoder<Capped>),
}

impl Decoder {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.write_all(data),
            Self::Deflate(decoder) => decoder.write_all(data),
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Deflate(decoder) => decoder.try_finish(),
        }
    }

    fn capped(&mut self) -> &mut Capped {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
        }
    }
}

/// Unpacks a body to `limit` bytes at most.
pub(super) async fn unpack(packed: Packed, body: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
    let capped = Capped {
        data: Vec::new(),
        limit,
        is_over: false,
    };
    let mut decoder = match packed {
        Packed::Gzip => Decoder::Gzip(GzDecoder::new(capped)),
        Packed::Deflate => Decoder::Deflate(ZlibDecoder::new(capped)),
    };
    let mut result = Ok(());
    for piece in body.chunks(PIECE) {
        result = decoder.write(piece);
        if result.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let result = result.and_then(|()| decoder.finish());
    let capped = decoder.capped();
    match result {
        _ if capped.is_over => Err(Failure::TooLarge),
        Ok(()) if !body.is_empty() => Ok(std::mem::take(&mut capped.data)),
        Ok(()) | Err(_) => Err(Failure::Broken),
    }
}

#[cfg(test)]
mod tests {
    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn what_unpacks_to_more_than_may_be_is_refused() {
        let bomb = gzip(&vec![0; 10 << 20]);
        assert!(bomb.len() < 20 << 10, "{}", bomb.len());
        assert_eq!(unpack(Packed::Gzip, &bomb, 1 << 20).await, Err(Failure::TooLarge));
        assert_eq!(
            unpack(Packed::Gzip, &bomb, 10 << 20).await.map(|d| d.len()),
            Ok(10 << 20)
        );
    }

    #[tokio::test]
    async fn what_is_broken_or_ends_too_early_is_refused() {
        let data = gzip(b"some words that are packed");
        for body in [&data[..data.len() - 9], b"", b"not packed", b"\x1f\x8b"] {
            assert_eq!(
                unpack(Packed::Gzip, body, 100).await,
                Err(Failure::Broken),
                "{body:?}"
            );
        }
        assert_eq!(unpack(Packed::Deflate, &data, 100).await, Err(Failure::Broken));
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back_and_no_bytes_panic(data in proptest::collection::vec(any::<u8>(), 1..3000)) {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&data).unwrap();
            let packed = encoder.finish().unwrap();
            // Giving way needs a runtime; a small body is one that has one turn.
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(unpack(Packed::Deflate, &packed, 3000)), Ok(data.clone()));
            let _ = runtime.block_on(unpack(Packed::Gzip, &data, 3000));
        }
    }
}
