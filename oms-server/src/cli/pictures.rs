//! Pictures for the demo shop, drawn instead of shipped: a shape with its shadow on a soft ground.

use std::f32::consts::TAU;
use std::io::Cursor;

use anyhow::Result;
use image::{ImageFormat, Rgb, RgbImage};

const WIDTH: u32 = 320;
const HEIGHT: u32 = 240;

/// The picture of a product, as PNG.
pub(super) fn draw(index: usize) -> Result<Vec<u8>> {
    let hue = index as f32 / 12.0;
    let picture = RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        let (x, y) = (x as f32 - WIDTH as f32 / 2.0, y as f32 - HEIGHT as f32 / 2.0);
        let ground = mix(color(hue, 0.93), color(hue + 0.08, 0.78), y / HEIGHT as f32 + 0.5);
        let shadow = cover(distance(index, x - 6.0, y - 12.0), 18.0) * 0.35;
        let lit = mix(
            color(hue + 0.5, 0.72),
            color(hue + 0.55, 0.48),
            (x + y) / 160.0 + 0.5,
        );
        let pixel = mix(
            mix(ground, color(hue, 0.25), shadow),
            lit,
            cover(distance(index, x, y), 1.0),
        );
        Rgb(pixel.map(|channel| (channel.clamp(0.0, 1.0) * 255.0) as u8))
    });
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png)?;
    Ok(png.into_inner())
}

/// How far a point is from the edge of the shape, in pixels; negative inside.
fn distance(index: usize, x: f32, y: f32) -> f32 {
    let radius = x.hypot(y);
    match index % 4 {
        0 => radius - 64.0,
        // A square with round corners.
        1 => (x.abs() - 42.0).max(0.0).hypot((y.abs() - 42.0).max(0.0)) - 18.0,
        // A ring.
        2 => (radius - 52.0).abs() - 16.0,
        // A flower.
        _ => radius - 54.0 - 14.0 * (6.0 * y.atan2(x)).cos(),
    }
}

/// 1 inside, 0 outside, and between them at an edge that is so many pixels soft.
fn cover(distance: f32, softness: f32) -> f32 {
    (0.5 - distance / softness).clamp(0.0, 1.0)
}

/// A colour of the wheel; 0 is dark, 1 is light.
fn color(hue: f32, light: f32) -> [f32; 3] {
    [0.0, 1.0 / 3.0, 2.0 / 3.0].map(|shift| light + 0.16 * (TAU * (hue + shift)).cos())
}

fn mix(from: [f32; 3], to: [f32; 3], share: f32) -> [f32; 3] {
    let share = share.clamp(0.0, 1.0);
    [0, 1, 2].map(|i| from[i] + (to[i] - from[i]) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_has_another_picture() {
        let pictures: std::collections::HashSet<_> = (0..12).map(|i| draw(i).unwrap()).collect();
        assert_eq!(pictures.len(), 12);
        for png in &pictures {
            assert!(crate::media::inspect(png).is_ok());
        }
    }
}
