//! What a SIGKILL costs: nothing but time.
//!
//! Workers run in processes of their own (`process`), which are this test program again (`worker`). Their activities note each run of a body in a
//! file (`effects`), so that runs are counted from outside the framework. A `World` is a namespace, or an embedded file, with the processes on it.

mod apps;
mod crashes;
mod effects;
mod inspect;
mod kill_points;
mod process;
mod random_kills;
mod readiness;
mod server_restarts;
mod servers;
mod soon;
mod worker;
mod world;

/// Not a test but the program of the processes that the tests start and kill; it returns at once where it is run as a test.
#[test]
fn worker_process() {
    worker::run_if_asked();
}
