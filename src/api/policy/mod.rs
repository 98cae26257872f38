//! Who may do what: Nova's policy rules by name, with its defaults (nova/policies/*.py, `enforce_new_defaults`).

mod rules;

use nova_core::context::RequestContext;
use nova_core::ids::{ProjectId, UserId};

use super::ApiError;

/// What a rule asks of the caller. Checks that speak of a project compare it with the target's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Everyone.
    Anyone,
    /// No one.
    Nobody,
    /// `context_is_admin`.
    Admin,
    /// `project_manager_or_admin`.
    Manager,
    /// `project_member_or_admin`.
    Member,
    /// `project_reader_or_admin`.
    Reader,
    /// `service_or_admin`.
    Service,
    /// An administrator, or the user that the target belongs to.
    AdminOrUser,
}

/// What the rule is asked about: whose it is. Empty fields count as the caller's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Target<'a> {
    /// The project that owns it.
    pub project_id: Option<&'a ProjectId>,
    /// The user that owns it.
    pub user_id: Option<&'a UserId>,
}

/// The check of a rule; a name that is not in the table is for no one.
pub fn check_of(rule: &str) -> Check {
    rules::RULES.binary_search_by_key(&rule, |(name, _)| name).map_or(Check::Nobody, |index| rules::RULES[index].1)
}

/// Does the rule let the caller do it to that target?
pub fn allows(rule: &str, context: &RequestContext, target: Target<'_>) -> bool {
    if context.is_admin() {
        return check_of(rule) != Check::Nobody;
    }
    let own_project = target.project_id.is_none_or(|project| *project == context.project_id);
    let own_user = target.user_id.is_none_or(|user| *user == context.user_id);
    match check_of(rule) {
        Check::Anyone => true,
        Check::Nobody | Check::Admin => false,
        Check::Manager => own_project && acts_as(context, "manager"),
        Check::Member => own_project && acts_as(context, "member"),
        Check::Reader => own_project && acts_as(context, "reader"),
        Check::Service => context.has_role("service"),
        Check::AdminOrUser => own_user,
    }
}

/// The same about the caller's own things.
///
/// # Errors
/// 403 with Nova's text.
pub fn enforce(rule: &str, context: &RequestContext) -> Result<(), ApiError> {
    enforce_on(rule, context, Target::default())
}

/// Refuses what the rule does not allow.
///
/// # Errors
/// 403 with Nova's text.
pub fn enforce_on(rule: &str, context: &RequestContext, target: Target<'_>) -> Result<(), ApiError> {
    if allows(rule, context, target) {
        return Ok(());
    }
    Err(ApiError::Forbidden(format!("Policy doesn't allow {rule} to be performed.")))
}

/// Has the caller this role, or one that implies it: admin > manager > member > reader?
fn acts_as(context: &RequestContext, role: &str) -> bool {
    const LADDER: [&str; 4] = ["reader", "member", "manager", "admin"];
    let from = LADDER.iter().position(|r| *r == role).unwrap_or(LADDER.len());
    LADDER[from..].iter().any(|r| context.has_role(r))
}

#[cfg(test)]
mod tests {
    use nova_core::entropy::SeededEntropy;
    use nova_core::ids::RequestId;

    use super::*;

    fn caller(role: &str) -> RequestContext {
        let mut context = RequestContext::internal(RequestId::generate(&SeededEntropy::new(1)));
        context.project_id = ProjectId::new("p");
        context.user_id = UserId::new("u");
        context.roles = vec![role.to_owned()];
        context
    }

    #[test]
    fn the_table_is_sorted_and_without_doubles() {
        assert!(rules::RULES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn readers_read_members_write_administrators_do_all() {
        let (read, write, admin) = (
            "os_compute_api:servers:show",
            "os_compute_api:servers:delete",
            "os_compute_api:servers:create:forced_host",
        );
        let may = |role: &str, rule| enforce(rule, &caller(role)).is_ok();
        assert!(may("reader", read) && !may("reader", write));
        assert!(may("member", read) && may("member", write) && !may("member", admin));
        assert!(may("manager", write) && !may("manager", admin));
        assert!(may("admin", admin) && may("ADMIN", read));
        assert!(!may("guest", read) && !may("service", read));
        assert!(!may("admin", "no:such:rule"));
    }

    #[test]
    fn another_project_is_out_of_reach_for_all_but_administrators() {
        let other = ProjectId::new("other");
        let target = Target { project_id: Some(&other), user_id: None };
        assert!(!allows("os_compute_api:servers:show", &caller("member"), target));
        assert!(allows("os_compute_api:servers:show", &caller("admin"), target));
        let user = UserId::new("someone");
        let target = Target { project_id: None, user_id: Some(&user) };
        assert!(!allows("os_compute_api:os-keypairs:show", &caller("member"), target));
    }
}
