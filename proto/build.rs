//! Compiles the contracts without a protoc on the machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=atm");
    let files = protox::compile(
        [
            "atm/types.proto",
            "atm/raft.proto",
            "atm/admin.proto",
            "atm/node.proto",
        ],
        ["."],
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        // Ten times as large as its siblings.
        .boxed(".atm.v1.TraceReply.event.frame")
        .compile_fds(files)?;
    Ok(())
}
