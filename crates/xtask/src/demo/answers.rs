//! What the demo asks of each archive, and how it shows and judges the answers.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::client::{Answer, Body, Client};
use crate::workspace;

const SENTENCES: [&str; 2] =
    ["A cat sits on the windowsill and watches the rain.", "A kitten is looking out of the window on a rainy day."];
const REMARKS: [&str; 3] = ["Thank you for your help!", "I like cats", "you are an idiot"];
const EMBEDDING_SIZE: usize = 384;

/// One archive's demonstration.
struct Demonstration {
    target: &'static str,
    about: &'static str,
    request: fn() -> Result<Body>,
    /// The lines to print; an error where the answer is wrong.
    read: fn(&Answer) -> Result<Vec<String>>,
}

const DEMONSTRATIONS: [Demonstration; 5] = [
    Demonstration {
        target: "minilm.tar.gz",
        about: "an ensemble of three models: sentences to embeddings",
        request: || Ok(texts("TEXT", &SENTENCES)),
        read: read_embeddings,
    },
    Demonstration {
        target: "minilm-int8.tar.gz",
        about: "the same with int8 weights",
        request: || Ok(texts("TEXT", &SENTENCES)),
        read: read_embeddings,
    },
    Demonstration {
        target: "mobilenet.tar.gz",
        about: "a photo of a cup of coffee, sent as a binary tensor",
        request: photo,
        read: read_classes,
    },
    Demonstration {
        target: "profanity.tar.gz",
        about: "an ONNX model that takes strings: is this offensive?",
        request: || Ok(texts("text", &REMARKS)),
        read: read_remarks,
    },
    Demonstration { target: "identity.tar.gz", about: "an echo", request: || Ok(echo()), read: read_echo },
];

const ECHO: [f64; 3] = [1.0, 2.5, -3.0];

/// Calls every archive twice and prints the answers; tells how many went wrong.
pub(super) fn show_all(client: &Client) -> usize {
    DEMONSTRATIONS.iter().filter(|demonstration| !demonstration.show(client)).count()
}

impl Demonstration {
    fn show(&self, client: &Client) -> bool {
        println!("\n{}: {}", self.target, self.about);
        let outcome = self.run(client);
        if let Err(error) = &outcome {
            println!("  FAILED: {error:#}");
        }
        outcome.is_ok()
    }

    fn run(&self, client: &Client) -> Result<()> {
        let body = (self.request)()?;
        let cold = client.invoke(self.target, &body)?;
        let warm = client.invoke(self.target, &body)?;
        for line in (self.read)(&cold)? {
            println!("  {line}");
        }
        println!("  cold {}, warm {}", timing(&cold), timing(&warm));
        ensure!(cold.body["outputs"] == warm.body["outputs"], "the second answer differs from the first");
        ensure!(warm.found == "memory", "the second request found the model in '{}', not in memory", warm.found);
        Ok(())
    }
}

fn timing(answer: &Answer) -> String {
    format!("{:.1} ms (from {})", answer.took.as_secs_f64() * 1e3, answer.found)
}

fn request(input: &Value) -> Body {
    Body { bytes: json!({ "inputs": [input] }).to_string().into_bytes(), json_size: None }
}

fn texts(input: &str, texts: &[&str]) -> Body {
    request(&json!({ "name": input, "datatype": "BYTES", "shape": [texts.len(), 1], "data": texts }))
}

fn echo() -> Body {
    request(&json!({ "name": "INPUT0", "datatype": "FP32", "shape": [ECHO.len()], "data": ECHO }))
}

/// The request that `setup` prepared; it asks for the five best classes.
fn photo() -> Result<Body> {
    let folder = workspace::prepared().join("demo-requests");
    let json_size = fs::metadata(folder.join("photo.json"))?.len() as usize;
    Ok(Body { bytes: fs::read(folder.join("photo.body"))?, json_size: Some(json_size) })
}

fn read_embeddings(answer: &Answer) -> Result<Vec<String>> {
    let numbers = answer.numbers("EMBEDDING")?;
    let count = SENTENCES.len() * EMBEDDING_SIZE;
    ensure!(numbers.len() == count, "{} numbers instead of {count}", numbers.len());
    let (first, second) = numbers.split_at(EMBEDDING_SIZE);
    for embedding in [first, second] {
        let length = dot(embedding, embedding).sqrt();
        ensure!((length - 1.0).abs() < 1e-3, "an embedding has length {length} instead of 1");
    }
    let cosine = dot(first, second);
    ensure!((0.5..0.999).contains(&cosine), "two alike but different sentences have cosine {cosine}");
    let start = |embedding: &[f64]| embedding[..4].iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(", ");
    Ok(vec![
        format!("\"{}\"  [{}, … {EMBEDDING_SIZE} numbers]", SENTENCES[0], start(first)),
        format!("\"{}\"  [{}, … {EMBEDDING_SIZE} numbers]", SENTENCES[1], start(second)),
        format!("cosine of the two: {cosine:.4}"),
    ])
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The classification extension answers with strings: `probability:index:label`.
fn read_classes(answer: &Answer) -> Result<Vec<String>> {
    let classes = answer.output("probabilities")?.iter().map(|class| {
        let mut parts = class.as_str().context("a class is not a string")?.splitn(3, ':');
        let probability: f64 = parts.next().unwrap_or_default().parse().context("a class has no probability")?;
        let label = parts.nth(1).context("a class has no label")?;
        Ok((probability, label.to_owned()))
    });
    let classes = classes.collect::<Result<Vec<_>>>()?;
    ensure!(classes.len() == 5, "{} classes instead of 5", classes.len());
    ensure!(classes[0].1 == "espresso", "the photo of an espresso is taken for '{}'", classes[0].1);
    Ok(classes.iter().map(|(probability, label)| format!("{:5.1} %  {label}", probability * 100.0)).collect())
}

fn read_remarks(answer: &Answer) -> Result<Vec<String>> {
    let probabilities = answer.numbers("probabilities")?;
    ensure!(probabilities.len() == 2 * REMARKS.len(), "{} probabilities", probabilities.len());
    let offensive: Vec<_> = probabilities.chunks(2).map(|pair| pair[1]).collect();
    let judged: Vec<_> = offensive.iter().map(|probability| *probability > 0.5).collect();
    ensure!(judged == [false, false, true], "judged {judged:?}");
    let lines = REMARKS.iter().zip(offensive);
    Ok(lines.map(|(text, probability)| format!("{:5.1} %  \"{text}\"", probability * 100.0)).collect())
}

fn read_echo(answer: &Answer) -> Result<Vec<String>> {
    let numbers = answer.numbers("OUTPUT0")?;
    ensure!(numbers == ECHO, "{numbers:?} came back instead of {ECHO:?}");
    Ok(vec![format!("{ECHO:?} came back unchanged")])
}
