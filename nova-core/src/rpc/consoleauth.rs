//! nova-consoleauth's interface: proxies hold no database, they ask here what a token is worth and whether their
//! sessions may go on. Tokens themselves are never said, only their hashes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compute::ConfirmedConsole;
use crate::console::{ConsoleSession, SessionEnd};
use crate::ids::{ConsoleSessionId, HostName, InstanceId, ProjectId, UserId};
use crate::rpc_method;

rpc_method! {
    /// Use a grant. One that is not there, was used, or is over: NotFound. One whose server or user may not have it any more:
    /// Forbidden, with the reason in words for the user. Safe to repeat: the same message, recognised by its `next_hash`, is
    /// answered with the same session for as long as that is not over. (Where sessions cannot be gone on with,
    /// `consoleauth.resume`, nothing remembers it: the second time it is NotFound, and the user asks for a new address.)
    /// What lets a client go on with a session of several channels is not used up: each of them is opened with it.
    OpenConsole = "consoleauth"."open_console": Call from [Novncproxy], OpenConsoleRequest => ConsoleSession
}
rpc_method! {
    /// Is what was connected to still this server's console? Asked once the connection stands, so that a port which went to
    /// another guest meanwhile is not shown.
    ConfirmSession = "consoleauth"."confirm_session": Call from [Novncproxy], ConsoleSession => ConfirmedConsole
}
rpc_method! {
    /// Which of these sessions have to end?
    CheckSessions = "consoleauth"."check_sessions": Call from [Novncproxy], CheckSessionsRequest => CheckSessionsReply
}
rpc_method! {
    /// The session is over at this proxy: its client may go on with it for a while, or not at all.
    EndSession = "consoleauth"."end_session": Call from [Novncproxy], EndSessionRequest => ()
}
rpc_method! {
    /// Are you there?
    Ping = "consoleauth"."ping": Call from [Api, Novncproxy], () => ()
}

/// A token that a client showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenConsoleRequest {
    /// Its hash.
    pub token_hash: String,
    /// The session that it shall become, unless it goes on with one.
    pub session_id: ConsoleSessionId,
    /// The hash of a token by which the client can go on when this proxy is gone, and open further channels of the session.
    #[serde(default)]
    pub next_hash: Option<String>,
}

/// Sessions of one proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSessionsRequest {
    /// Each of them.
    pub sessions: Vec<SessionClaim>,
}

/// What a session rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionClaim {
    /// Which.
    pub id: ConsoleSessionId,
    /// Of which server.
    pub instance_id: InstanceId,
    /// On which host.
    pub host: HostName,
    /// Who looks.
    pub user_id: UserId,
    /// In which project.
    pub project_id: ProjectId,
}

impl From<&ConsoleSession> for SessionClaim {
    fn from(session: &ConsoleSession) -> Self {
        Self {
            id: session.id,
            instance_id: session.instance_id,
            host: session.host.clone(),
            user_id: session.user_id.clone(),
            project_id: session.project_id.clone(),
        }
    }
}

/// What has to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSessionsReply {
    /// Which, and why.
    pub ended: Vec<(ConsoleSessionId, SessionEnd)>,
}

/// A session that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndSessionRequest {
    /// The hash of the token by which the client can go on.
    pub next_hash: String,
    /// For how long; zero: it cannot.
    #[serde(default)]
    pub keep: Duration,
    /// The hash of the token that was shown for it, where nothing came of it: that one is good again, in place of the one
    /// above, which nobody has.
    #[serde(default)]
    pub back: Option<String>,
}
