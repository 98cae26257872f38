//! Bodies that change a service (nova/api/openstack/compute/schemas/services.py).

use nova_core::host::Service;
use serde_json::{Value, json};

use crate::api::validate::{Fields, Shown, Text, invalid};
use crate::api::{ApiError, Microversion};

/// What operators set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Taken out (and why) or put back.
    pub status: Option<Status>,
    /// Declared dead or alive.
    pub forced_down: Option<bool>,
}

/// In or out of scheduling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// In.
    Enabled,
    /// Out.
    Disabled {
        /// Why.
        reason: Option<String>,
    },
}

impl Change {
    /// The body of `PUT /os-services/{uuid}`, 2.53.
    ///
    /// # Errors
    /// 400.
    pub fn read(body: &Value, lenient: bool) -> Result<Self, ApiError> {
        let mut fields = Fields::root(body, lenient)?;
        let status = fields.get("status");
        let reason = fields.text("disabled_reason", Text::new(1, 255))?.map(str::to_owned);
        let forced_down = fields.boolean("forced_down")?;
        fields.finish()?;
        let status = match status.map(|value| (value, value.as_str())) {
            None => None,
            Some((_, Some("enabled"))) if reason.is_some() => {
                return Err(ApiError::bad_request("Specifying 'disabled_reason' with status 'enabled' is invalid."));
            }
            Some((_, Some("enabled"))) => Some(Status::Enabled),
            Some((_, Some("disabled"))) => Some(Status::Disabled { reason }),
            Some((value, _)) => {
                let problem = format!("{} is not one of ['enabled', 'disabled']", Shown(value));
                return Err(invalid("status", value, problem));
            }
        };
        if status.is_none() && forced_down.is_none() {
            return Err(ApiError::bad_request(
                "No updates were requested. Fields 'status' or 'forced_down' should be specified.",
            ));
        }
        Ok(Self { status, forced_down })
    }

    /// Makes it so.
    pub fn apply_to(&self, service: &mut Service) {
        match &self.status {
            None => {}
            Some(Status::Enabled) => {
                service.disabled = false;
                service.disabled_reason = None;
                // Who puts a host back does not want it emptied any more.
                service.drain = None;
            }
            Some(Status::Disabled { reason }) => {
                service.disabled = true;
                service.disabled_reason.clone_from(reason);
            }
        }
        if let Some(forced_down) = self.forced_down {
            service.forced_down = forced_down;
        }
    }
}

/// What versions before 2.53 say.
#[derive(Debug)]
pub struct Order {
    /// The service's host.
    pub host: String,
    /// Its binary.
    pub binary: String,
    /// What to change.
    pub change: Change,
}

impl Order {
    /// The body of the answer.
    pub fn answer(&self) -> Value {
        let mut view = json!({"host": self.host, "binary": self.binary});
        match &self.change.status {
            None => {}
            Some(Status::Enabled) => view["status"] = json!("enabled"),
            Some(Status::Disabled { reason }) => {
                view["status"] = json!("disabled");
                if let Some(reason) = reason {
                    view["disabled_reason"] = json!(reason);
                }
            }
        }
        if let Some(forced_down) = self.change.forced_down {
            view["forced_down"] = json!(forced_down);
        }
        view
    }
}

/// `PUT /os-services/enable` and its like.
///
/// # Errors
/// 400 for a wrong body, 404 for an unknown word.
pub fn read_order(word: &str, body: &Value, version: Microversion, lenient: bool) -> Result<Order, ApiError> {
    let mut fields = Fields::root(body, lenient)?;
    let host = fields.required_text("host", Text::new(1, 255))?;
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        let value = Value::String(host.to_owned());
        return Err(invalid("host", &value, format_args!("'{host}' does not match '^[a-zA-Z0-9-._]*$'")));
    }
    let binary = fields.required_text("binary", Text::new(1, 255))?;
    let reason = fields.text("disabled_reason", Text::new(1, 255))?.map(str::to_owned);
    let forced_down = if version.at_least(11) { fields.boolean("forced_down")? } else { None };
    fields.finish()?;
    let change = match word {
        "enable" => Change { status: Some(Status::Enabled), forced_down: None },
        "disable" => Change { status: Some(Status::Disabled { reason: None }), forced_down: None },
        "disable-log-reason" => {
            let reason = Some(reason.ok_or_else(|| ApiError::bad_request("Missing disabled reason field"))?);
            Change { status: Some(Status::Disabled { reason }), forced_down: None }
        }
        "force-down" if version.at_least(11) => {
            let forced_down = forced_down.ok_or_else(|| ApiError::bad_request("Missing forced_down field"))?;
            Change { status: None, forced_down: Some(forced_down) }
        }
        _ => return Err(ApiError::not_found("Unknown action")),
    };
    Ok(Order { host: host.to_owned(), binary: binary.to_owned(), change })
}
