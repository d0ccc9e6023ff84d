//! `sim-node`: runs the real node library in a simulation, from a seed.

#[cfg(not(atm_sim))]
fn main() -> std::process::ExitCode {
    eprintln!("this is built with --cfg atm_sim: make sim-node");
    std::process::ExitCode::from(69)
}

#[cfg(atm_sim)]
fn main() -> std::process::ExitCode {
    sim_node::command::main()
}
