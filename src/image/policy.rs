//! Who may see and change an image (Glance's default policy).

use nova_core::context::RequestContext;
use nova_core::image::{Image, MemberStatus, Visibility};

use crate::api::ApiError;

/// May the caller know that the image is there?
pub(super) fn may_see(context: &RequestContext, image: &Image) -> bool {
    context.is_admin()
        || image.owner == context.project_id
        || match image.visibility {
            Visibility::Public | Visibility::Community => true,
            Visibility::Shared => image.members.contains_key(&context.project_id),
            Visibility::Private => false,
        }
}

/// Does the image stand in the caller's lists when they ask for no visibility? Community images of others do not.
pub(super) fn is_listed(context: &RequestContext, image: &Image) -> bool {
    may_see(context, image) && (image.visibility != Visibility::Community || image.owner == context.project_id)
}

/// Is it shown to the caller as to a member with one of these statuses, or otherwise than as to a member?
pub(super) fn fits_member(context: &RequestContext, image: &Image, wanted: Option<MemberStatus>) -> bool {
    if image.visibility != Visibility::Shared || image.owner == context.project_id {
        return true;
    }
    let Some(member) = image.members.get(&context.project_id) else { return true };
    wanted.is_none_or(|wanted| member.status == wanted)
}

/// The image, or the 404 that those get who may not know of it.
pub(super) fn visible(context: &RequestContext, image: Image) -> Result<Image, ApiError> {
    if may_see(context, &image) { Ok(image) } else { Err(not_found(&image.id.to_string())) }
}

/// May the caller change it? Who can see but not change it gets 403.
pub(super) fn require_owner(context: &RequestContext, image: &Image, what: &str) -> Result<(), ApiError> {
    if context.is_admin() || image.owner == context.project_id && context.has_role("member") {
        return Ok(());
    }
    Err(ApiError::forbidden(format!("You are not permitted to {what} this image.")))
}

/// Making images takes more than reading.
pub(super) fn require_member(context: &RequestContext) -> Result<(), ApiError> {
    if context.is_admin() || context.has_role("member") {
        return Ok(());
    }
    Err(ApiError::forbidden("You are not authorized to complete add_image action."))
}

/// Only administrators show an image to everybody.
pub(super) fn require_publish(context: &RequestContext, visibility: Visibility) -> Result<(), ApiError> {
    if visibility == Visibility::Public && !context.is_admin() {
        return Err(ApiError::forbidden("You are not authorized to complete publicize_image action."));
    }
    Ok(())
}

/// 404, as Glance words it.
pub(super) fn not_found(id: &str) -> ApiError {
    ApiError::not_found(format!("No image found with ID {id}"))
}
