//! The cloud in pieces: each service a process, over a RabbitMQ and a database that the test has to itself, so that it
//! can end them. The environment variable in a test's `ignore` says that the server is installed on this machine.

mod cloud;
mod counts;
mod frozen;
mod interfaces;
mod kill;
mod outage;
mod pairs;
mod schedulers;
mod servers;
mod start;
mod volumes;
