//! Runs the binary and keeps what it said.

use std::process::{Command, Output, Stdio};

use crate::double::Double;

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Stdout as JSON; there is exactly one line of it.
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Asserts that there was nothing but a result.
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Asserts that there was no result.
    pub(crate) fn failed(self, code: i32) -> Self {
        assert_eq!((self.code, &*self.stdout), (code, ""), "{self:?}");
        self
    }
}

/// The binary with `arguments`, apart from the environment of whoever runs the tests.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atmctl"));
    command
        .args(arguments)
        .env_remove("ATMCTL_ENDPOINT")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

pub(crate) fn atmctl(arguments: &[&str]) -> Outcome {
    outcome(command(arguments).output().unwrap())
}

/// Runs with `--endpoint` set to the double.
pub(crate) fn asking(double: &Double, arguments: &[&str]) -> Outcome {
    let endpoint = double.address.to_string();
    atmctl(&[&["--endpoint", &endpoint], arguments].concat())
}

pub(crate) fn outcome(output: Output) -> Outcome {
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
