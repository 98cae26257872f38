//! The roles that every cloud has, and which of them contain others.

/// Roles that are there from the first start and cannot be changed or removed (`keystone-manage bootstrap
/// --immutable-roles`).
pub const BUILT_IN_ROLES: [&str; 5] = ["admin", "manager", "member", "reader", "service"];

/// What a role contains besides itself: `admin` ⊃ `manager` ⊃ `member` ⊃ `reader`.
pub(super) fn implied_by(role: &str) -> &'static [&'static str] {
    match role.to_ascii_lowercase().as_str() {
        "admin" => &["manager", "member", "reader"],
        "manager" => &["member", "reader"],
        "member" => &["reader"],
        _ => &[],
    }
}

/// Is it one of the roles that cannot be changed?
pub(super) fn is_built_in(role: &str) -> bool {
    BUILT_IN_ROLES.iter().any(|name| name.eq_ignore_ascii_case(role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_implied_implies_no_more_than_its_holder() {
        for role in BUILT_IN_ROLES {
            for implied in implied_by(role) {
                assert!(
                    implied_by(implied).iter().all(|further| implied_by(role).contains(further)),
                    "{role} {implied}"
                );
                assert_ne!(*implied, role);
            }
        }
        assert_eq!(implied_by("service"), [""; 0]);
    }
}
