//! Who may do what, by Keystone's default rules: an administrator everything, everybody what concerns themselves.

use nova_core::contracts::TokenInfo;

use crate::api::{ApiError, Request};

/// Who asks.
pub(super) fn caller(request: &Request) -> Result<&TokenInfo, ApiError> {
    request.token.as_deref().ok_or(ApiError::Unauthorized)
}

/// `rule:admin_required`.
pub(super) fn is_admin(token: &TokenInfo) -> bool {
    token.roles.iter().any(|role| role.name.eq_ignore_ascii_case("admin"))
}

/// Only an administrator. `action` is Keystone's name of the rule, as in `identity:list_users`.
pub(super) fn require_admin<'a>(request: &'a Request, action: &str) -> Result<&'a TokenInfo, ApiError> {
    require(request, action, |_| false)
}

/// An administrator, or who has another reason.
pub(super) fn require<'a>(
    request: &'a Request,
    action: &str,
    or: impl FnOnce(&TokenInfo) -> bool,
) -> Result<&'a TokenInfo, ApiError> {
    let token = caller(request)?;
    if is_admin(token) || or(token) {
        return Ok(token);
    }
    Err(ApiError::forbidden(format!("You are not authorized to perform the requested action: {action}.")))
}
