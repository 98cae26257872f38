//! `POST /v3/auth/tokens`: who are you, and for which project do you want to speak?

use jiff::Timestamp;
use nova_core::contracts::TokenInfo;
use nova_core::identity::User;
use nova_core::ids::{DomainId, ProjectId, UserId};
use serde_json::{Map, Value};

use super::directory::Directory;
use super::manager::IdentityManager;
use super::password::Password;
use super::token::Claims;
use crate::api::ApiError;

/// A thing that a request names by id, or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reference {
    Id(String),
    Name(String),
}

/// A thing within a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    Id(String),
    Named { name: String, domain: Reference },
}

#[derive(Debug, PartialEq, Eq)]
enum Proof {
    Password {
        user: Member,
        password: Password,
    },
    /// Hidden like a password.
    Token(Password),
}

#[derive(Debug, PartialEq, Eq)]
enum Scope {
    /// None was asked for: the user's default project if there is one.
    Default,
    Unscoped,
    Project(Member),
    /// A domain or the whole system, on which nobody has roles here.
    Elsewhere,
}

/// A request for a token, read from its body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    proof: Proof,
    scope: Scope,
}

impl Login {
    /// Reads the body's `auth`.
    ///
    /// # Errors
    /// 400 names the field; 401 for methods that are not offered.
    pub(super) fn parse(body: &Value) -> Result<Self, ApiError> {
        let auth = object(body, "auth", "auth")?;
        let identity = object_in(auth, "identity", "auth.identity")?;
        let methods = identity.get("methods").and_then(Value::as_array);
        let methods = methods.ok_or_else(|| wrong("auth.identity.methods", "is not a list"))?;
        let mut names = methods
            .iter()
            .map(|method| method.as_str().ok_or_else(|| wrong("auth.identity.methods", "holds what is no text")));
        let proof = match (names.next().transpose()?, names.next().transpose()?) {
            (Some("password"), None) => password(object_in(identity, "password", "auth.identity.password")?)?,
            (Some("token"), None) => token(object_in(identity, "token", "auth.identity.token")?)?,
            (None, _) => return Err(wrong("auth.identity.methods", "is empty")),
            _ => return Err(ApiError::Unauthorized),
        };
        Ok(Self { proof, scope: scope(auth.get("scope"))? })
    }
}

fn password(fields: &Map<String, Value>) -> Result<Proof, ApiError> {
    let user = object_in(fields, "user", "auth.identity.password.user")?;
    let password = Password::new(text(user, "password", "auth.identity.password.user.password")?);
    Ok(Proof::Password { user: member(user, "auth.identity.password.user")?, password })
}

fn token(fields: &Map<String, Value>) -> Result<Proof, ApiError> {
    Ok(Proof::Token(Password::new(text(fields, "id", "auth.identity.token.id")?)))
}

fn scope(value: Option<&Value>) -> Result<Scope, ApiError> {
    let fields = match value {
        None | Some(Value::Null) => return Ok(Scope::Default),
        Some(Value::String(word)) if word == "unscoped" => return Ok(Scope::Unscoped),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(wrong("auth.scope", "is not an object")),
    };
    if fields.len() != 1 {
        return Err(wrong("auth.scope", "must name exactly one of project, domain, system and unscoped"));
    }
    if fields.contains_key("project") {
        return Ok(Scope::Project(member(object_in(fields, "project", "auth.scope.project")?, "auth.scope.project")?));
    }
    if fields.contains_key("unscoped") {
        return Ok(Scope::Unscoped);
    }
    match fields.keys().next().map(String::as_str) {
        Some("domain" | "system" | "OS-TRUST:trust") => Ok(Scope::Elsewhere),
        _ => Err(wrong("auth.scope", "must name one of project, domain, system and unscoped")),
    }
}

fn member(fields: &Map<String, Value>, path: &str) -> Result<Member, ApiError> {
    if fields.get("id").is_some_and(|id| !id.is_null()) {
        return Ok(Member::Id(text(fields, "id", &format!("{path}.id"))?));
    }
    let name = text(fields, "name", &format!("{path}.name"))?;
    let domain_path = format!("{path}.domain");
    let domain = object_in(fields, "domain", &domain_path)?;
    let domain = if domain.get("id").is_some_and(|id| !id.is_null()) {
        Reference::Id(text(domain, "id", &format!("{domain_path}.id"))?)
    } else {
        Reference::Name(text(domain, "name", &format!("{domain_path}.name"))?)
    };
    Ok(Member::Named { name, domain })
}

fn object<'a>(value: &'a Value, key: &str, path: &str) -> Result<&'a Map<String, Value>, ApiError> {
    value
        .as_object()
        .and_then(|fields| fields.get(key)?.as_object())
        .ok_or_else(|| wrong(path, "is missing or not an object"))
}

fn object_in<'a>(fields: &'a Map<String, Value>, key: &str, path: &str) -> Result<&'a Map<String, Value>, ApiError> {
    fields.get(key).and_then(Value::as_object).ok_or_else(|| wrong(path, "is missing or not an object"))
}

fn text(fields: &Map<String, Value>, key: &str, path: &str) -> Result<String, ApiError> {
    fields.get(key).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| wrong(path, "is missing or not a text"))
}

fn wrong(path: &str, what: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid input for field '{path}': it {what}."))
}

fn domain_of(directory: &Directory, reference: &Reference) -> Option<DomainId> {
    match reference {
        Reference::Id(id) => directory.domains.get(&DomainId::new(id.clone())).map(|domain| domain.id.clone()),
        Reference::Name(name) => directory.domain_named(name).map(|domain| domain.id.clone()),
    }
}

fn user_of<'a>(directory: &'a Directory, member: &Member) -> Option<&'a User> {
    match member {
        Member::Id(id) => directory.users.get(&UserId::new(id.clone())),
        Member::Named { name, domain } => directory.user_named(name, &domain_of(directory, domain)?),
    }
}

fn project_of(directory: &Directory, member: &Member) -> Option<ProjectId> {
    match member {
        Member::Id(id) => directory.projects.get(&ProjectId::new(id.clone())).map(|project| project.id.clone()),
        Member::Named { name, domain } => {
            directory.project_named(name, &domain_of(directory, domain)?).map(|project| project.id.clone())
        }
    }
}

impl IdentityManager {
    /// Gives a token to who proves to be somebody. Whatever is wrong with the proof or the scope, the answer is the same.
    pub(super) async fn login(&self, login: Login) -> Result<(String, TokenInfo), ApiError> {
        // From before the proof was looked at: a password that is changed meanwhile takes this token back, too.
        let began = self.clock.now();
        let directory = self.current().await?;
        let claims = match login.proof {
            Proof::Password { user, password } => {
                let user = user_of(&directory, &user);
                let hash = user.and_then(|user| user.password_hash.as_deref());
                let proved = self.passwords.verify(password, hash).await?;
                let user = user.filter(|user| proved && directory.user_counts(user)).ok_or(ApiError::Unauthorized)?;
                self.new_claims(user.id.clone(), vec!["password".to_owned()], began)
            }
            Proof::Token(token) => self.exchange(&directory, token.reveal(), began)?,
        };
        // A password may have been checked for a while: somebody may have disabled the user meanwhile.
        let directory = self.current().await?;
        let project_id = match login.scope {
            Scope::Unscoped => None,
            Scope::Elsewhere => return Err(ApiError::Unauthorized),
            Scope::Project(project) => Some(project_of(&directory, &project).ok_or(ApiError::Unauthorized)?),
            Scope::Default => default_project(&directory, &claims.user_id),
        };
        self.sign(&directory, Claims { project_id, ..claims }).ok_or(ApiError::Unauthorized)
    }

    /// A token made from another ends when that one does, and carries its audit id.
    fn exchange(&self, directory: &Directory, token: &str, began: Timestamp) -> Result<Claims, ApiError> {
        let parent = self.claims(token).ok_or(ApiError::Unauthorized)?;
        directory.check(&parent, began).map_err(|_| ApiError::Unauthorized)?;
        let mut methods = parent.methods;
        if !methods.iter().any(|method| method == "token") {
            methods.push("token".to_owned());
        }
        let mut claims = self.new_claims(parent.user_id, methods, began);
        claims.expires_at = parent.expires_at;
        claims.audit_ids.extend(parent.audit_ids.last().cloned());
        Ok(claims)
    }
}

/// The user's default project, where they can have a token for it.
fn default_project(directory: &Directory, user: &UserId) -> Option<ProjectId> {
    let id = directory.users.get(user)?.default_project_id.clone()?;
    let counts = directory.projects.get(&id).is_some_and(|project| directory.project_counts(project));
    (counts && !directory.granted(user, &id).is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_clients_send_is_understood() {
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {"name": "demo", "password": "x", "domain": {"name": "Default"}}}},
            "scope": {"project": {"id": "p", "domain": {"id": "default"}}},
        }});
        let login = Login::parse(&body).unwrap();
        assert_eq!(login.scope, Scope::Project(Member::Id("p".into())));
        let named = Member::Named { name: "demo".into(), domain: Reference::Name("Default".into()) };
        assert_eq!(login.proof, Proof::Password { user: named, password: Password::new("x") });
        assert!(!format!("{login:?}").contains("\"x\""));
    }

    #[test]
    fn malformed_bodies_name_the_field() {
        let cases = [
            (json!(null), "auth'"),
            (json!({"auth": []}), "auth'"),
            (json!({"auth": {"identity": {"methods": "password"}}}), "auth.identity.methods"),
            (json!({"auth": {"identity": {"methods": []}}}), "auth.identity.methods"),
            (json!({"auth": {"identity": {"methods": [1]}}}), "auth.identity.methods"),
            (json!({"auth": {"identity": {"methods": ["password"]}}}), "auth.identity.password"),
            (
                json!({"auth": {"identity": {"methods": ["password"], "password": {"user": {"name": "x", "password": "y"}}}}}),
                "user.domain",
            ),
            (json!({"auth": {"identity": {"methods": ["token"], "token": {"id": 7}}}}), "auth.identity.token.id"),
            (
                json!({"auth": {"identity": {"methods": ["token"], "token": {"id": "x"}}, "scope": {"galaxy": 1}}}),
                "auth.scope",
            ),
        ];
        for (body, field) in cases {
            let error = Login::parse(&body).unwrap_err();
            assert!(matches!(&error, ApiError::BadRequest(text) if text.contains(field)), "{body} {error}");
        }
        let totp = json!({"auth": {"identity": {"methods": ["password", "totp"], "password": {}}}});
        assert!(matches!(Login::parse(&totp), Err(ApiError::Unauthorized)));
    }
}
