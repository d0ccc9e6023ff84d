//! Everything that tests the cluster as a whole: a lab of network namespaces, faults, observers, workloads, checkers.

pub mod bugs;
pub mod checkers;
pub mod cluster;
pub mod demo;
pub mod equipment;
pub mod forwarding;
pub mod history;
pub mod lab;
pub mod lines;
pub mod mail;
pub mod mail_cluster;
pub mod nemesis;
pub mod observer;
pub mod peers;
pub mod report;
pub mod run;
pub mod services;
pub mod sim;
pub mod switch;
pub mod workload;
