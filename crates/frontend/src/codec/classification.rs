//! Triton's classification extension: the best classes of an output instead of all its values.

use std::cmp::Ordering;

use bytemuck::Pod;
use half::{bf16, f16};
use inference::{DataType, Error, Result, Shape, Tensor};

/// The `classes` largest values of each batch row (of the whole tensor, where the model does not batch), largest first, as
/// `value:index` or, where there is a label, `value:index:label`. Equal values keep their order; a NaN comes last.
///
/// The result is BYTES of shape [batch, k] or [k], where k is at most the row's length.
///
/// # Errors
/// InvalidArgument for BOOL and BYTES tensors.
pub(super) fn classify(tensor: &Tensor, batches: bool, classes: usize, labels: &[String]) -> Result<Tensor> {
    let ranking = Ranking { tensor, batches, classes, labels };
    match tensor.datatype() {
        DataType::Uint8 => ranking.rank::<u8>(|value| value.to_string()),
        DataType::Uint16 => ranking.rank::<u16>(|value| value.to_string()),
        DataType::Uint32 => ranking.rank::<u32>(|value| value.to_string()),
        DataType::Uint64 => ranking.rank::<u64>(|value| value.to_string()),
        DataType::Int8 => ranking.rank::<i8>(|value| value.to_string()),
        DataType::Int16 => ranking.rank::<i16>(|value| value.to_string()),
        DataType::Int32 => ranking.rank::<i32>(|value| value.to_string()),
        DataType::Int64 => ranking.rank::<i64>(|value| value.to_string()),
        DataType::Fp16 => ranking.rank::<f16>(|value| fixed_point(value.to_f64())),
        DataType::Bf16 => ranking.rank::<bf16>(|value| fixed_point(value.to_f64())),
        DataType::Fp32 => ranking.rank::<f32>(|value| fixed_point(f64::from(value))),
        DataType::Fp64 => ranking.rank::<f64>(fixed_point),
        DataType::Bool | DataType::Bytes => Err(Error::invalid_argument(format!(
            "classification is not possible for a {} output; it needs numbers",
            tensor.datatype()
        ))),
    }
}

struct Ranking<'a> {
    tensor: &'a Tensor,
    batches: bool,
    classes: usize,
    labels: &'a [String],
}

/// As C++'s `std::to_string` writes floats.
fn fixed_point(value: f64) -> String {
    format!("{value:.6}")
}

impl Ranking<'_> {
    fn rank<T: Pod + PartialOrd>(&self, format: impl Fn(T) -> String) -> Result<Tensor> {
        let values: Vec<T> = bytemuck::pod_collect_to_vec(self.tensor.data());
        let batch = self.tensor.shape().first().copied().filter(|_| self.batches);
        let rows = batch.map_or(1, |batch| usize::try_from(batch).unwrap_or(0));
        let row_length = values.len().checked_div(rows).unwrap_or(0);
        let kept = self.classes.min(row_length);
        let mut entries = Vec::with_capacity(rows * kept);
        for row in values.chunks_exact(row_length.max(1)) {
            entries.extend(largest(row, kept).into_iter().map(|index| {
                let label = self.labels.get(index).map_or(String::new(), |label| format!(":{label}"));
                format!("{}:{index}{label}", format(row[index]))
            }));
        }
        let shape = Shape::from([kept as i64]);
        Tensor::from_strings(batch.map_or(shape.clone(), |batch| shape.with_batch(batch)), &entries)
    }
}

/// The positions of the `kept` largest values, largest first.
fn largest<T: PartialOrd>(row: &[T], kept: usize) -> Vec<usize> {
    let order = |a: &usize, b: &usize| descending(&row[*a], &row[*b]).then(a.cmp(b));
    let mut positions: Vec<usize> = (0..row.len()).collect();
    if kept < positions.len() {
        positions.select_nth_unstable_by(kept, order);
        positions.truncate(kept);
    }
    positions.sort_unstable_by(order);
    positions
}

fn descending<T: PartialOrd>(a: &T, b: &T) -> Ordering {
    let is_nan = |value: &T| value.partial_cmp(value).is_none();
    b.partial_cmp(a).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(tensor: &Tensor) -> Vec<String> {
        tensor.strings().expect("BYTES").map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
    }

    #[test]
    fn the_best_of_each_row_with_labels() {
        let tensor = Tensor::from_vec(Shape::from([2, 3]), vec![0.1f32, 0.7, 0.2, f32::NAN, 2.0, 2.0]).expect("valid");
        let labels = ["cat".to_owned(), "dog".to_owned()];
        let best = classify(&tensor, true, 2, &labels).expect("numbers");
        assert_eq!(best.shape(), &Shape::from([2, 2]));
        assert_eq!(entries(&best), ["0.700000:1:dog", "0.200000:2", "2.000000:1:dog", "2.000000:2"]);
        let all = classify(&tensor, false, 100, &[]).expect("numbers");
        assert_eq!(all.shape(), &Shape::from([6]));
        assert_eq!(entries(&all)[5], "NaN:3");
    }

    #[test]
    fn integers_stay_integers_and_strings_are_refused() {
        let tensor = Tensor::from_vec(Shape::from([3]), vec![-5i64, i64::MAX, i64::MAX - 1]).expect("valid");
        let best = classify(&tensor, false, 2, &[]).expect("numbers");
        assert_eq!(entries(&best), ["9223372036854775807:1", "9223372036854775806:2"]);
        let strings = Tensor::from_strings(Shape::from([1]), &["x"]).expect("valid");
        assert!(classify(&strings, false, 1, &[]).is_err());
        let empty = Tensor::from_vec::<f32>(Shape::from([0, 3]), Vec::new()).expect("valid");
        assert_eq!(classify(&empty, true, 2, &[]).expect("numbers").shape(), &Shape::from([0, 0]));
    }
}
