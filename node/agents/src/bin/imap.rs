//! imapAgent: exit status 0 if a server carries out a transaction of IMAP.

fn main() -> std::process::ExitCode {
    agents::command_line::run(agents::Agent::Imap)
}
