//! `os-getConsoleOutput`: what the guest wrote to its serial console (nova/api/openstack/compute/console_output.py).

use std::sync::Arc;

use http::StatusCode;
use nova_core::state::{Action, decide};
use serde_json::{Value, json};

use super::actions::refused;
use super::{Servers, instance_not_found, owner};
use crate::api::compute::OrderError;
use crate::api::validate::{Fields, integer};
use crate::api::{ApiError, HandlerResult, Request, Response, policy};

impl Servers {
    pub(super) async fn console_output(self: Arc<Self>, request: Request, body: Value) -> HandlerResult {
        let length = length(&body, request.lenient)?;
        let context = request.context()?;
        let id = request.param("id");
        let instance = self.api.visible_instance(context, id).await?;
        policy::enforce_on("os_compute_api:os-console-output", context, owner(&instance))?;
        let situation = instance.situation(context.is_admin(), true, request.version.0);
        decide(Action::GetConsoleOutput, &situation).map_err(|refusal| refused(&refusal, id))?;
        let Some(host) = &instance.host else { return Err(ApiError::Conflict(format!("Instance {id} is not ready"))) };
        let output = self.api.orders.console_output(context, host, instance.id, length).await;
        let output = output.map_err(|error| order_failed(error, id))?;
        let output = last_lines(&printable(&output), length);
        Ok(Response::json(StatusCode::OK, &json!({"output": output})))
    }
}

/// How many lines are asked for; missing, null and −1 mean all.
fn length(body: &Value, lenient: bool) -> Result<Option<u32>, ApiError> {
    let mut fields = Fields::of("os-getConsoleOutput", body, lenient)?;
    let asked = match fields.get("length") {
        None | Some(Value::Null) => None,
        Some(value) => Some(integer("length", value, -1, i64::MAX)?),
    };
    fields.finish()?;
    Ok(asked.filter(|length| *length >= 0).map(|length| u32::try_from(length).unwrap_or(u32::MAX)))
}

/// Without the control characters that Nova takes out, too; tabs and line ends stay.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '\0'..='\x08' | '\x0b'..='\x1f')).collect()
}

/// Exactly the last `length` lines, or as many as there are; a line end at the very end begins no line.
fn last_lines(text: &str, length: Option<u32>) -> String {
    let Some(length) = length else { return text.to_owned() };
    let body = text.strip_suffix('\n').unwrap_or(text);
    let lines: Vec<&str> = body.split('\n').collect();
    lines[lines.len().saturating_sub(length as usize)..].join("\n")
}

fn order_failed(error: OrderError, id: &str) -> ApiError {
    match error {
        OrderError::NotFound => instance_not_found(id),
        OrderError::NotReady => ApiError::Conflict(format!("Instance {id} is not ready")),
        OrderError::Unsupported => {
            ApiError::NotImplemented("Unable to get console log, functionality not implemented".to_owned())
        }
        OrderError::HostUnavailable { source } | OrderError::Failed { source } => {
            tracing::warn!(instance = id, error = &*source as &dyn std::error::Error, "no console output");
            ApiError::Unavailable { retry_after: 5 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_gives_exactly_that_many_lines() {
        let log = "one\ntwo\nthree\nfour\n";
        let lines = |length| last_lines(log, Some(length)).split('\n').count();
        assert_eq!((lines(1), lines(3), lines(4), lines(99)), (1, 3, 4, 4));
        assert_eq!(last_lines(log, Some(1)), "four");
        assert_eq!(last_lines(log, Some(0)), "");
        assert_eq!(last_lines(log, None), log);
    }

    #[test]
    fn lengths_are_numbers_or_their_texts() {
        assert_eq!(length(&json!({}), false).unwrap(), None);
        assert_eq!(length(&json!({"length": null}), false).unwrap(), None);
        assert_eq!(length(&json!({"length": -1}), false).unwrap(), None);
        assert_eq!(length(&json!({"length": "12"}), false).unwrap(), Some(12));
        for bad in [json!(null), json!({"length": -2}), json!({"length": "x"}), json!({"size": 1})] {
            assert!(length(&bad, false).is_err(), "{bad}");
        }
    }

    #[test]
    fn control_characters_are_taken_out() {
        assert_eq!(printable("a\x1b[0m\r\n\tb\0"), "a[0m\n\tb");
    }
}
