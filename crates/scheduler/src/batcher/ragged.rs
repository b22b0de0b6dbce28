//! Requests of different shapes in one batch: inputs in one dimension, inputs that tell the model where each request
//! begins, and outputs that are split by shapes; pure.

use bytes::Bytes;
use inference::{
    BatchInput, BatchInputKind, DataType, Error, InferRequest, ModelSpec, NamedTensor, Result, Shape, Tensor,
};

use super::rows::cut;

/// The elements of all tensors one after the other, in one dimension. One tensor alone is not copied.
///
/// # Errors
/// InvalidArgument when their types differ, or when there is none.
pub(crate) fn flatten(tensors: &[&Tensor]) -> Result<Tensor> {
    let first = tensors.first().ok_or_else(|| Error::invalid_argument("no tensors to join"))?;
    let count = tensors.iter().map(|tensor| tensor.element_count()).sum::<usize>();
    let shape = Shape::from([to_dimension(count)?]);
    if tensors.len() == 1 {
        return first.with_shape(shape);
    }
    if tensors.iter().any(|tensor| tensor.datatype() != first.datatype()) {
        return Err(Error::invalid_argument("tensors of different types cannot share a batch"));
    }
    let mut data = Vec::with_capacity(tensors.iter().map(|tensor| tensor.data().len()).sum());
    for tensor in tensors {
        data.extend_from_slice(tensor.data());
    }
    Tensor::new(first.datatype(), shape, Bytes::from(data))
}

/// The inputs that the server makes for a batch of these requests.
///
/// # Errors
/// InvalidArgument when a request lacks the input that one is about, or a count does not fit its type.
pub(crate) fn made_inputs(spec: &ModelSpec, requests: &[InferRequest]) -> Result<Vec<NamedTensor>> {
    let mut made = Vec::new();
    for input in &spec.ragged.batch_inputs {
        let source = |request: &InferRequest| {
            let tensor = request.input(&input.source).map(|tensor| tensor.shape().clone());
            tensor.ok_or_else(|| {
                let (source, target) = (&input.source, input.targets.first());
                let target = target.map_or("", |name| name);
                Error::invalid_argument(format!("batch input '{target}' needs input '{source}', which is not there"))
            })
        };
        let shapes = requests.iter().map(source).collect::<Result<Vec<Shape>>>()?;
        let tensor = make(input, &shapes)?;
        made.extend(input.targets.iter().map(|name| NamedTensor { name: name.clone(), tensor: tensor.clone() }));
    }
    Ok(made)
}

/// One such input, about a source that has these shapes, batch dimension included.
fn make(input: &BatchInput, shapes: &[Shape]) -> Result<Tensor> {
    let counts: Vec<i64> = shapes.iter().map(|shape| shape.iter().product()).collect();
    let running = counts.iter().scan(0, |sum, count| {
        *sum += count;
        Some(*sum)
    });
    let numbers: Vec<i64> = match input.kind {
        BatchInputKind::ElementCount => counts,
        BatchInputKind::AccumulatedElementCount => running.collect(),
        BatchInputKind::AccumulatedElementCountWithZero => std::iter::once(0).chain(running).collect(),
        BatchInputKind::MaxElementCountAsShape => {
            let most = counts.iter().copied().max().unwrap_or(0);
            vec![0; usize::try_from(most).unwrap_or(0)]
        }
        BatchInputKind::ItemShape | BatchInputKind::ItemShapeFlatten => shapes.iter().flat_map(items).collect(),
    };
    let shape = match input.kind {
        BatchInputKind::ItemShape => {
            let dimensions = shapes.first().map_or(0, |shape| shape.len().saturating_sub(1));
            Shape::from([shapes.iter().filter_map(|shape| shape.first()).sum(), to_dimension(dimensions)?])
        }
        _ => Shape::from([to_dimension(numbers.len())?]),
    };
    match input.datatype {
        DataType::Fp32 => Tensor::from_vec(shape, numbers.into_iter().map(|number| number as f32).collect()),
        _ => {
            let number = |number| {
                i32::try_from(number).map_err(|_| Error::invalid_argument(format!("{number} does not fit an INT32")))
            };
            Tensor::from_vec(shape, numbers.into_iter().map(number).collect::<Result<Vec<i32>>>()?)
        }
    }
}

/// The dimensions of one request's rows, over and over.
fn items(shape: &Shape) -> impl Iterator<Item = i64> + '_ {
    let rows = shape.first().and_then(|rows| usize::try_from(*rows).ok()).unwrap_or(0);
    std::iter::repeat_n(&shape[shape.len().min(1)..], rows).flatten().copied()
}

/// The output for each request: `declared`, its open dimensions being those of the request's `source`. `None` when the
/// output does not have just the elements of all.
pub(crate) fn scatter(output: &Tensor, declared: &Shape, sources: &[Shape]) -> Option<Vec<Tensor>> {
    let mut from = 0;
    let part = |source: &Shape| {
        let dims = declared.iter().enumerate().map(|(index, dim)| match dim {
            -1 => source.get(index).copied(),
            fixed => Some(*fixed),
        });
        cut(output, &mut from, dims.collect::<Option<Shape>>()?)
    };
    let parts: Option<Vec<Tensor>> = sources.iter().map(part).collect();
    parts.filter(|_| from == output.data().len())
}

fn to_dimension(count: usize) -> Result<i64> {
    i64::try_from(count).map_err(|_| Error::invalid_argument("the batch has too many elements"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(kind: BatchInputKind, datatype: DataType, shapes: &[&[i64]]) -> Tensor {
        let input = BatchInput { kind, targets: vec!["t".into()], datatype, source: "s".into() };
        make(&input, &shapes.iter().map(|shape| Shape::new(shape)).collect::<Vec<_>>()).expect("small")
    }

    /// The example of Triton's `model_config.proto` for the shapes; the counts by hand.
    #[test]
    fn made_inputs_tell_counts_and_shapes() {
        let shapes: [&[i64]; 2] = [&[2, 3, 1], &[1, 2, 2]];
        let cases: [(BatchInputKind, &[i64], &[i32]); 6] = [
            (BatchInputKind::ElementCount, &[2], &[6, 4]),
            (BatchInputKind::AccumulatedElementCount, &[2], &[6, 10]),
            (BatchInputKind::AccumulatedElementCountWithZero, &[3], &[0, 6, 10]),
            (BatchInputKind::MaxElementCountAsShape, &[6], &[0; 6]),
            (BatchInputKind::ItemShape, &[3, 2], &[3, 1, 3, 1, 2, 2]),
            (BatchInputKind::ItemShapeFlatten, &[6], &[3, 1, 3, 1, 2, 2]),
        ];
        for (kind, shape, numbers) in cases {
            let tensor = made(kind, DataType::Int32, &shapes);
            assert_eq!(**tensor.shape(), *shape, "{kind:?}");
            assert_eq!(*tensor.to_elements::<i32>().expect("INT32"), *numbers, "{kind:?}");
            let tensor = made(kind, DataType::Fp32, &shapes);
            let floats: Vec<f32> = numbers.iter().map(|number| *number as f32).collect();
            assert_eq!(*tensor.to_elements::<f32>().expect("FP32"), *floats, "{kind:?}");
        }
    }

    proptest! {
        /// Whatever the shapes, what is flattened and scattered by its own shapes comes back; strings, too.
        #[test]
        fn what_is_flattened_is_scattered_without_a_copy(
            shapes in proptest::collection::vec((1i64..4, 0i64..4), 1..6),
            strings in any::<bool>(),
        ) {
            let make = |(rows, width): &(i64, i64)| {
                let (shape, count) = (Shape::from([*rows, *width]), (rows * width) as usize);
                match strings {
                    true => Tensor::from_strings(shape, &(0..count).map(|n| "ä".repeat(n % 4)).collect::<Vec<_>>()),
                    false => Tensor::from_vec(shape, (0..count as i32).collect()),
                }.expect("fits")
            };
            let parts: Vec<Tensor> = shapes.iter().map(make).collect();
            let whole = flatten(&parts.iter().collect::<Vec<_>>()).expect("one type");
            let sources: Vec<Shape> = parts.iter().map(|part| part.shape().clone()).collect();
            prop_assert_eq!(whole.shape().len(), 1);
            let again = scatter(&whole, &Shape::from([-1, -1]), &sources).expect("as many elements");
            prop_assert_eq!(&again, &parts);
            for part in again.iter().filter(|part| !part.data().is_empty()) {
                prop_assert!(whole.data().as_ptr_range().contains(&part.data().as_ptr()), "it shares the bytes of the whole");
            }
            let others = [sources, vec![Shape::from([1, 1])]].concat();
            prop_assert!(scatter(&whole, &Shape::from([-1, -1]), &others).is_none(), "one element is missing");
            prop_assert!(scatter(&whole, &Shape::from([-1, -1, -1]), &others).is_none(), "the rank differs");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let input = |datatype| BatchInput {
            kind: BatchInputKind::ElementCount,
            targets: vec!["t".into()],
            datatype,
            source: "s".into(),
        };
        let long = [Shape::from([1, 1 << 31])];
        assert!(make(&input(DataType::Int32), &long).is_err());
        assert!(make(&input(DataType::Fp32), &long).is_ok());
        let numbers = Tensor::from_vec(Shape::from([1]), vec![1i32]).expect("fits");
        let strings = Tensor::from_strings(Shape::from([1]), &["x"]).expect("fits");
        assert!(flatten(&[&numbers, &strings]).is_err());
        assert!(flatten(&[]).is_err());
    }
}
