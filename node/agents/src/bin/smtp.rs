//! smtpAgent: exit status 0 if a server carries out a transaction of SMTP.

fn main() -> std::process::ExitCode {
    agents::command_line::run(agents::Agent::Smtp)
}
