//! Rows of a call that are of one picture: what they have in common goes into a network once.
//!
//! Used with networks that [`once_a_picture`](super::edit::once_a_picture) edited. Invariant: rows of one picture have the same bits
//! of sample and timestep, so whether rows share a picture changes nothing of what they get.

use super::dialect::Port;
use super::session::{Input, Values};

/// A network's input for the pictures of rows, and buffers that are kept from call to call.
pub(super) struct Pictures {
    port: Port,
    /// The picture of each row.
    of_row: Vec<u32>,
    samples: Vec<f32>,
    timesteps: Vec<f32>,
    /// Shapes of samples, timesteps and pictures of rows.
    shapes: [Vec<usize>; 3],
}

impl Pictures {
    pub(super) fn new(port: Port) -> Self {
        Self {
            port,
            of_row: Vec::new(),
            samples: Vec::new(),
            timesteps: Vec::new(),
            shapes: Default::default(),
        }
    }

    /// The inputs of a call with `sample` and `timestep`, its first two, by picture, and with the pictures of its rows.
    pub(super) fn shared<'a>(&'a mut self, inputs: &[Input<'a>]) -> Vec<Input<'a>> {
        let [sample, timestep, others @ ..] = inputs else {
            return inputs.to_vec();
        };
        let (Values::Real(samples), Values::Real(timesteps)) = (sample.values, timestep.values) else {
            return inputs.to_vec();
        };
        self.find(samples, timesteps);
        let pictures = self.timesteps.len();
        self.shapes = [
            [&[pictures], &sample.shape[1..]].concat(),
            vec![pictures],
            vec![self.of_row.len()],
        ];
        let [of_samples, of_timesteps, of_rows] = &self.shapes;
        let mut all = vec![
            Input {
                port: sample.port,
                shape: of_samples,
                values: Values::Real(&self.samples),
            },
            Input {
                port: timestep.port,
                shape: of_timesteps,
                values: Values::Real(&self.timesteps),
            },
        ];
        all.extend_from_slice(others);
        all.push(Input {
            port: &self.port,
            shape: of_rows,
            values: Values::Ids(&self.of_row),
        });
        all
    }

    /// Finds the pictures of rows: those of one stand beside each other.
    fn find(&mut self, samples: &[f32], timesteps: &[f32]) {
        self.of_row.clear();
        self.samples.clear();
        self.timesteps.clear();
        let each = samples.len() / timesteps.len().max(1);
        for (row, timestep) in timesteps.iter().enumerate() {
            let sample = &samples[row * each..][..each];
            let is_last = self
                .timesteps
                .last()
                .is_some_and(|last| same(&[*last], &[*timestep]))
                && same(&self.samples[self.samples.len() - each..], sample);
            if !is_last {
                self.samples.extend_from_slice(sample);
                self.timesteps.push(*timestep);
            }
            self.of_row.push(self.timesteps.len() as u32 - 1);
        }
    }
}

/// Whether numbers have the same bits: zeros have a sign, and what is no number is not like another.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(samples: &[f32], timesteps: &[f32]) -> (Vec<u32>, Vec<f32>, Vec<f32>) {
        let mut pictures = Pictures::new(Port {
            name: String::new(),
            dtype: None,
            dims: Vec::new(),
        });
        // What an earlier call left must not be seen.
        pictures.find(&[9.0; 4], &[9.0; 2]);
        pictures.find(samples, timesteps);
        (pictures.of_row, pictures.samples, pictures.timesteps)
    }

    #[test]
    fn rows_beside_each_other_with_the_same_bits_are_of_one_picture() {
        let (of_row, samples, timesteps) = found(&[1.0, 2.0, 1.0, 2.0, 3.0, 4.0], &[5.0; 3]);
        assert_eq!(of_row, [0, 0, 1]);
        assert_eq!(samples, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(timesteps, [5.0, 5.0]);
    }

    #[test]
    fn other_timesteps_signs_of_zero_and_places_are_other_pictures() {
        assert_eq!(found(&[1.0, 1.0], &[5.0, 6.0]).0, [0, 1]);
        assert_eq!(found(&[0.0, -0.0], &[5.0, 5.0]).0, [0, 1]);
        assert_eq!(found(&[1.0, 2.0, 1.0], &[5.0; 3]).0, [0, 1, 2]);
        assert_eq!(found(&[], &[]).0, [0_u32; 0]);
    }

    #[test]
    fn a_call_has_its_pictures_once_and_all_its_rows() {
        let port = |name: &str| Port {
            name: name.to_owned(),
            dtype: None,
            dims: Vec::new(),
        };
        let (sample, timestep, states) = (port("sample"), port("timestep"), port("states"));
        fn real<'a>(port: &'a Port, shape: &'a [usize], values: &'a [f32]) -> Input<'a> {
            Input {
                port,
                shape,
                values: Values::Real(values),
            }
        }
        let mut pictures = Pictures::new(port("mobula_picture"));
        let inputs = [
            real(&sample, &[2, 1, 1, 2], &[1.0, 2.0, 1.0, 2.0]),
            real(&timestep, &[2], &[5.0, 5.0]),
            real(&states, &[2, 1, 1], &[7.0, 8.0]),
        ];
        let shared = pictures.shared(&inputs);
        let names: Vec<&str> = shared.iter().map(|input| &input.port.name[..]).collect();
        assert_eq!(names, ["sample", "timestep", "states", "mobula_picture"]);
        let shapes: Vec<&[usize]> = shared.iter().map(|input| input.shape).collect();
        assert_eq!(shapes, [&[1, 1, 1, 2][..], &[1], &[2, 1, 1], &[2]]);
        assert!(matches!(shared[3].values, Values::Ids([0, 0])));
    }
}
