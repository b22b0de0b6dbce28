//! The README's table of options, generated from the arguments themselves.

use std::fmt::Write;

use clap::{Arg, ArgAction, CommandFactory};

use crate::args::Cli;

/// The table in Markdown, one section per heading of `--help`.
pub(crate) fn options_table() -> String {
    let command = Cli::command();
    let serve = command.find_subcommand("serve").expect("invariant: the subcommand exists");
    let mut table = String::new();
    let mut heading = None;
    for option in serve.get_arguments().filter(|option| option.get_env().is_some()) {
        if option.get_help_heading() != heading {
            heading = option.get_help_heading();
            let title = heading.unwrap_or("Other");
            let _ = write!(
                table,
                "\n**{title}**\n\n| option | variable | default | meaning |\n| --- | --- | --- | --- |\n"
            );
        }
        table.push_str(&row(option));
    }
    table.trim_start().to_owned()
}

fn row(option: &Arg) -> String {
    let name = option.get_long().unwrap_or_default();
    let value = match (option.get_action(), option.get_value_names()) {
        (ArgAction::SetTrue, _) | (_, None) => String::new(),
        (_, Some(names)) => format!(" {}", names.join(" ").replace('|', "\\|")),
    };
    let variable = option.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let help = option.get_help().map(ToString::to_string).unwrap_or_default();
    let (meaning, stated) = match help.split_once(" [default: ") {
        Some((meaning, default)) => (meaning.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, String::new()),
    };
    let defaults: Vec<_> = option.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = match (defaults.is_empty(), option.get_action()) {
        (true, _) | (_, ArgAction::SetTrue) => stated,
        (false, _) => format!("`{}`", defaults.join(",")),
    };
    format!("| `--{name}{value}` | `{variable}` | {default} | {meaning} |\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_current_table() {
        let readme = include_str!("../../../README.md");
        let between = readme.split_once("<!-- options -->").and_then(|(_, rest)| rest.split_once("<!-- /options -->"));
        let (table, _) = between.expect("README.md marks its table with <!-- options --> and <!-- /options -->");
        assert_eq!(
            table.trim(),
            options_table().trim(),
            "paste the output of `cargo run -p server -- options-table` into README.md"
        );
    }
}
