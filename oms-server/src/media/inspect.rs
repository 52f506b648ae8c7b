//! What the bytes of an upload are.

use oms_core::catalog::Media;
use sha2::{Digest, Sha256};

/// The largest picture, in bytes.
pub const MAX_BYTES: usize = 5 << 20;
/// The most pixels: a small file can claim a picture that fills a browser's memory.
const MAX_PIXELS: usize = 40_000_000;

/// What the bytes are. Neither a file's name nor what the client says of it counts.
pub fn inspect(bytes: &[u8]) -> Result<Media, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("must have at most {MAX_BYTES} bytes"));
    }
    let kind = infer::get(bytes)
        .filter(|kind| {
            matches!(
                kind.mime_type(),
                "image/png" | "image/jpeg" | "image/webp" | "image/gif"
            )
        })
        .ok_or("must be a picture: png, jpeg, webp or gif")?;
    let size =
        imagesize::blob_size(bytes).map_err(|_| "is damaged: it does not say how large the picture is")?;
    match size.width.checked_mul(size.height) {
        Some(1..=MAX_PIXELS) => {}
        _ => return Err(format!("must have at most {MAX_PIXELS} pixels")),
    }
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Media {
        name: format!("{hex}.{}", kind.extension()),
        content_type: kind.mime_type().into(),
        // At most `MAX_BYTES`.
        bytes: bytes.len() as i64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn the_bytes_decide() {
        let media = inspect(&png(2, 2)).unwrap();
        assert_eq!(media.content_type, "image/png");
        assert!(
            media.name.len() == 68 && media.name.ends_with(".png"),
            "{}",
            media.name
        );
        for other in [
            &b""[..],
            b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>",
            b"<html>",
            b"%PDF-1.7",
            b"\x89PNG\r\n\x1a\n",
        ] {
            assert!(inspect(other).is_err(), "{other:?}");
        }
        assert!(inspect(&png(100_000, 100_000)).is_err());
        assert!(inspect(&png(0, 5)).is_err());
        let mut large = png(2, 2);
        large.resize(MAX_BYTES + 1, 0);
        assert!(inspect(&large).is_err());
    }
}
