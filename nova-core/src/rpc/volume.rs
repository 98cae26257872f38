//! What volume hosts are told: that there is a task for them. The task itself is in the store, so that a word that is lost
//! only costs time.

use serde::{Deserialize, Serialize};

use crate::ids::VolumeTaskId;
use crate::rpc_method;

rpc_method! {
    /// There is a task for this host.
    RunTask = "volume"."run_task": Cast from [Api, Conductor, Volume], RunTaskRequest => ()
}
rpc_method! {
    /// There is a task for this host; answer when it is over, well or not. What came of it is in the store.
    FinishTask = "volume"."finish_task": Call from [Api, Conductor, Volume], RunTaskRequest => ()
}

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTaskRequest {
    /// The task.
    pub task: VolumeTaskId,
}
