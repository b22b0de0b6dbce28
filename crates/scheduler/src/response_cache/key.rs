//! What a cached answer is found by: a digest of everything that the answer depends on. Pure.

use inference::{InferRequest, NamedTensor, Parameter, Parameters};

use crate::batcher::signature::is_of_the_queue;

/// A digest of a model and a request to it.
///
/// It stands for the request: nothing else is compared when an answer is found. Two requests with one digest would get one
/// answer, so the digest is BLAKE3's in full, for which nobody can make two such requests on purpose, and by chance it takes
/// 2^128 of them. A faster hash of 128 bits would save 50 µs of 600 KB, and leave it to the client's good will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

/// The key of a request to the model that was loaded as number `model`. The order of inputs, outputs and parameters does
/// not matter; the request's id does not, nor do its deadline and its place in the queue.
pub(super) fn key(model: u64, request: &InferRequest) -> Key {
    let mut digest = Digest(blake3::Hasher::new());
    digest.number(model);
    let mut inputs: Vec<&NamedTensor> = request.inputs.iter().collect();
    inputs.sort_by(|a, b| a.name.cmp(&b.name));
    digest.number(inputs.len() as u64);
    inputs.into_iter().for_each(|input| digest.tensor(input));
    let mut outputs: Vec<&str> = request.outputs.iter().map(|name| &**name).collect();
    outputs.sort_unstable();
    outputs.dedup();
    digest.number(outputs.len() as u64);
    outputs.into_iter().for_each(|name| digest.bytes(name.as_bytes()));
    digest.parameters(&request.parameters);
    Key(*digest.0.finalize().as_bytes())
}

/// Writes so that no two different requests are the same bytes: whatever varies in length has its length in front.
struct Digest(blake3::Hasher);

impl Digest {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn tensor(&mut self, NamedTensor { name, tensor }: &NamedTensor) {
        self.bytes(name.as_bytes());
        self.bytes(tensor.datatype().name().as_bytes());
        self.number(tensor.shape().len() as u64);
        tensor.shape().iter().for_each(|dimension| self.number(dimension.cast_unsigned()));
        self.bytes(tensor.data());
    }

    fn parameters(&mut self, parameters: &Parameters) {
        for (name, value) in parameters.iter().filter(|(name, _)| !is_of_the_queue(name)) {
            self.bytes(name.as_bytes());
            match value {
                Parameter::Bool(value) => self.bytes(&[0, u8::from(*value)]),
                Parameter::Int64(value) => self.bytes(&[&[1], &value.to_le_bytes()[..]].concat()),
                Parameter::Double(value) => self.bytes(&[&[2], &value.to_le_bytes()[..]].concat()),
                Parameter::String(value) => self.bytes(&[&[3], value.as_bytes()].concat()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use inference::{Shape, Tensor};
    use proptest::prelude::*;

    use super::*;

    fn tensor(name: &str, shape: &[i64], bytes: &[u8]) -> NamedTensor {
        let shape = Shape::from(shape.to_vec());
        NamedTensor::new(name, Tensor::from_vec(shape, bytes.to_vec()).expect("fits"))
    }

    fn request() -> InferRequest {
        InferRequest {
            inputs: vec![tensor("a", &[2, 1], &[1, 2]), tensor("b", &[1], &[3])],
            outputs: vec!["x".into(), "y".into()],
            parameters: [("p".to_owned(), Parameter::Int64(1))].into(),
            ..InferRequest::default()
        }
    }

    #[test]
    fn what_changes_no_answer_changes_no_key() {
        let mut other = request();
        other.inputs.reverse();
        other.outputs.reverse();
        other.id = "id".to_owned();
        other.deadline = Some(std::time::Instant::now());
        other.parameters.insert("priority".to_owned(), Parameter::Int64(1));
        assert_eq!(key(1, &request()), key(1, &other));
    }

    #[test]
    fn whatever_may_change_an_answer_changes_the_key() {
        let changes: [fn(&mut InferRequest); 9] = [
            |request| request.inputs[0] = tensor("a", &[2, 1], &[1, 9]),
            |request| request.inputs[0] = tensor("a", &[1, 2], &[1, 2]),
            |request| request.inputs[0] = tensor("A", &[2, 1], &[1, 2]),
            |request| request.inputs.truncate(1),
            |request| request.outputs.truncate(1),
            |request| request.outputs.clear(),
            |request| request.parameters.clear(),
            |request| drop(request.parameters.insert("p".to_owned(), Parameter::Double(1.0))),
            |request| drop(request.parameters.insert("p".to_owned(), Parameter::String("1".to_owned()))),
        ];
        let mut keys = vec![key(1, &request()), key(2, &request())];
        for change in changes {
            let mut other = request();
            change(&mut other);
            keys.push(key(1, &other));
        }
        let signed = NamedTensor::new("a", Tensor::from_vec(Shape::from([2, 1]), vec![1i8, 2]).expect("fits"));
        keys.push(key(1, &InferRequest { inputs: vec![signed, tensor("b", &[1], &[3])], ..request() }));
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "case {index}");
        }
    }

    proptest! {
        /// Moving bytes from one field to its neighbour makes another request, and another key.
        #[test]
        fn fields_do_not_run_together(left in "[ab]{0,3}", right in "[ab]{0,3}", cut in 0usize..6) {
            let all = format!("{left}{right}");
            let (other_left, other_right) = all.split_at(cut.min(all.len()));
            let of = |first: &str, second: &str| {
                let outputs = [first, second].iter().map(|name| (*name).into()).collect();
                key(1, &InferRequest { outputs, ..InferRequest::default() })
            };
            let names = |a: &str, b: &str| { let mut names = [a.to_owned(), b.to_owned()]; names.sort(); names };
            let same = names(&left, &right) == names(other_left, other_right);
            prop_assert_eq!(of(&left, &right) == of(other_left, other_right), same);
        }
    }
}
