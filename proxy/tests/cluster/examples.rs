//! The examples of conflict policies, as their readers run them: `meridian demo` and Python.

use std::path::Path;
use std::process::Command;

use crate::clients::{python, run};
use crate::harness::ports;
use crate::process::Running;

/// How many regions a demo has.
const REGIONS: u16 = 3;

#[test]
fn the_examples_of_policies_do_what_they_say() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies");
    let port = ports::take_for_demo(REGIONS).to_string();
    let policies = examples.join("policies.toml");
    let mut demo = Running::start(&["demo", "--base-port", &port, "--with", policies.to_str().unwrap()]);
    demo.wait_for_line("ready");
    for script in ["cart.py", "profile.py", "counter.py", "note.py"] {
        // Twice: each begins with what it needs.
        for _ in 0..2 {
            let mut command = Command::new(python());
            command
                .env("PYTHONDONTWRITEBYTECODE", "1")
                .arg(examples.join(script))
                .args(["--base-port", &port]);
            println!("{script}\n{}", run(&mut command));
        }
    }
    demo.signal("INT");
    assert_eq!(demo.wait().code(), Some(0));
}
