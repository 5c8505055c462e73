//! Rows of components to rows of RGB.
//!
//! YCbCr as libjpeg-turbo's src/jdcolor.c has it, with 16 bits behind the point, rounded; ink as Pillow turns it to RGB
//! (src/libImaging/Convert.c, `cmyk2rgb`), turned round as Adobe's files are, and Pillow takes all files for.
//! Refuses nothing.

use super::frame::Frame;

/// What a file's components are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Grey,
    Ycc,
    Rgb,
    Cmyk,
    Ycck,
}

impl Space {
    /// Guesses as libjpeg does (src/jdapimin.c, `default_decompress_parms`).
    pub(super) fn of(frame: &Frame, is_jfif: bool, adobe: Option<u8>) -> Self {
        let names: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (names.len(), is_jfif, adobe) {
            (1, ..) => Self::Grey,
            (4, _, None | Some(0)) => Self::Cmyk,
            (4, ..) => Self::Ycck,
            (_, false, Some(0)) => Self::Rgb,
            (_, false, None) if names == *b"RGB" => Self::Rgb,
            _ => Self::Ycc,
        }
    }

    /// Turns one row; `rgb` is three times as long as the picture is wide, and no row is shorter than that.
    pub(super) fn row(self, rows: &[&[u8]], rgb: &mut [u8]) {
        match (self, rows) {
            (Self::Ycc, [y, cb, cr]) => ycc(y, cb, cr, rgb),
            (Self::Rgb, [r, g, b]) => {
                for (((pixel, r), g), b) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(*r).zip(*g).zip(*b) {
                    *pixel = [*r, *g, *b];
                }
            }
            (Self::Cmyk, [c, m, y, k]) => {
                for ((((pixel, c), m), y), k) in rgb
                    .as_chunks_mut::<3>()
                    .0
                    .iter_mut()
                    .zip(*c)
                    .zip(*m)
                    .zip(*y)
                    .zip(*k)
                {
                    *pixel = [*c, *m, *y].map(|ink| inked(ink, *k));
                }
            }
            (Self::Ycck, [y, cb, cr, k]) => {
                ycc(y, cb, cr, rgb);
                for (pixel, k) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(*k) {
                    *pixel = pixel.map(|ink| inked(255 - ink, *k));
                }
            }
            // Grey; the other pairs do not come of a frame.
            (_, rows) => {
                for (pixel, grey) in rgb
                    .as_chunks_mut::<3>()
                    .0
                    .iter_mut()
                    .zip(rows.iter().flat_map(|row| row.iter()))
                {
                    *pixel = [*grey; 3];
                }
            }
        }
    }
}

/// Pixels that are turned at once.
const LANES: usize = 16;

fn ycc(y: &[u8], cb: &[u8], cr: &[u8], rgb: &mut [u8]) {
    let whole = rgb.len() / 3 / LANES;
    let lanes = |row: &[u8], at: usize| -> [u8; LANES] {
        let mut lanes = [0; LANES];
        let row = &row[at * LANES..];
        let count = row.len().min(LANES);
        lanes[..count].copy_from_slice(&row[..count]);
        lanes
    };
    let mut chunks = rgb.chunks_exact_mut(LANES * 3);
    for (at, pixels) in chunks.by_ref().enumerate() {
        put(pixels, &turn(lanes(y, at), lanes(cb, at), lanes(cr, at)));
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        put(rest, &turn(lanes(y, whole), lanes(cb, whole), lanes(cr, whole)));
    }
}

fn put(pixels: &mut [u8], [r, g, b]: &[[u8; LANES]; 3]) {
    for (((pixel, r), g), b) in pixels.as_chunks_mut::<3>().0.iter_mut().zip(r).zip(g).zip(b) {
        *pixel = [*r, *g, *b];
    }
}

/// Factors of 16 bits behind the point, less whole ones where they would not fit 16 bits with their sign.
const CR_R: i32 = 91_881 - (1 << 16);
const CB_G: i32 = -22_554;
const CR_G: i32 = -46_802 + (1 << 16);
const CB_B: i32 = 116_130 - (2 << 16);
const HALF: i32 = 1 << 15;

fn turn(y: [u8; LANES], cb: [u8; LANES], cr: [u8; LANES]) -> [[u8; LANES]; 3] {
    let mut rgb = [[0; LANES]; 3];
    for lane in 0..LANES {
        let [y, cb, cr] = [
            i16::from(y[lane]),
            i16::from(cb[lane]) - 128,
            i16::from(cr[lane]) - 128,
        ];
        let (blue, red) = (i32::from(cb), i32::from(cr));
        let r = y + cr + ((red * CR_R + HALF) >> 16) as i16;
        let g = y - cr + ((blue * CB_G + red * CR_G + HALF) >> 16) as i16;
        let b = y + 2 * cb + ((blue * CB_B + HALF) >> 16) as i16;
        rgb[0][lane] = r.clamp(0, 255) as u8;
        rgb[1][lane] = g.clamp(0, 255) as u8;
        rgb[2][lane] = b.clamp(0, 255) as u8;
    }
    rgb
}

/// What is left of light behind an ink and black; both are turned round: 255 is no ink.
fn inked(ink: u8, black: u8) -> u8 {
    // Divided by 255, rounded.
    let product = u32::from(255 - ink) * u32::from(black) + 128;
    let dark = (product + (product >> 8)) >> 8;
    (u32::from(black) - dark) as u8
}
