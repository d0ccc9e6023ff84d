//! httpAgent: exit status 0 if a server carries out a transaction of HTTP.

fn main() -> std::process::ExitCode {
    agents::command_line::run(agents::Agent::Http)
}
