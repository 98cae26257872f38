//! Images that are shown to some projects.

use serde_json::{Value, json};

use crate::identity::testing::Cloud;

const IMAGES: &str = "/image/v2/images";

async fn create(cloud: &Cloud, token: &str, visibility: &str) -> String {
    let body = json!({"name": "mine", "disk_format": "raw", "container_format": "bare", "visibility": visibility});
    let answer = cloud.call(token, "POST", IMAGES, body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["id"].as_str().unwrap().to_owned()
}

async fn project(cloud: &Cloud, name: &str) -> String {
    let admin = cloud.token("admin").await;
    let projects = cloud.get(&admin, &format!("/identity/v3/projects?name={name}")).await.json();
    projects["projects"][0]["id"].as_str().unwrap().to_owned()
}

async fn listed(cloud: &Cloud, token: &str, query: &str) -> usize {
    let answer = cloud.get(token, &format!("{IMAGES}?{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["images"].as_array().unwrap().len()
}

/// The administrator sees everything, so the image is the administrator's and the member is `demo`.
#[tokio::test]
async fn a_member_sees_and_accepts() {
    let cloud = Cloud::new().await;
    let (admin, demo) = (cloud.token("admin").await, cloud.token("demo").await);
    let member = project(&cloud, "demo").await;
    let id = create(&cloud, &admin, "shared").await;
    let members = format!("{IMAGES}/{id}/members");
    let one = format!("{members}/{member}");
    assert_eq!(cloud.get(&demo, &format!("{IMAGES}/{id}")).await.status, 404);
    let made = cloud.call(&admin, "POST", &members, json!({"member": member})).await;
    assert_eq!(made.status, 200, "{made:?}");
    let view = made.json();
    assert_eq!((&view["image_id"], &view["member_id"]), (&json!(id), &json!(member)));
    assert_eq!((&view["status"], &view["schema"]), (&json!("pending"), &json!("/v2/schemas/member")));
    assert_eq!(cloud.call(&admin, "POST", &members, json!({"member": member})).await.status, 409);
    // By its id at once, in lists once it is accepted.
    assert_eq!(cloud.get(&demo, &format!("{IMAGES}/{id}")).await.status, 200);
    assert_eq!(listed(&cloud, &demo, "").await, 0);
    assert_eq!(listed(&cloud, &demo, "member_status=pending").await, 1);
    assert_eq!(listed(&cloud, &demo, "visibility=shared&member_status=all").await, 1);
    let accepted = cloud.call(&demo, "PUT", &one, json!({"status": "accepted"})).await;
    assert_eq!((accepted.status, &accepted.json()["status"]), (200, &json!("accepted")));
    assert_eq!(listed(&cloud, &demo, "").await, 1);
    assert_eq!(cloud.call(&demo, "PUT", &one, json!({"status": "rejected"})).await.status, 200);
    assert_eq!(listed(&cloud, &demo, "").await, 0);
    assert_eq!(listed(&cloud, &demo, "member_status=rejected").await, 1);
    assert_eq!(cloud.get(&demo, &members).await.json()["members"].as_array().unwrap().len(), 1);
    assert_eq!(cloud.get(&demo, &one).await.json()["status"], "rejected");
    assert_eq!(cloud.call(&admin, "DELETE", &one, Value::Null).await.status, 204);
    assert_eq!(cloud.call(&admin, "DELETE", &one, Value::Null).await.status, 404);
    assert_eq!(cloud.get(&demo, &format!("{IMAGES}/{id}")).await.status, 404);
}

#[tokio::test]
async fn owners_choose_members_and_members_speak_for_themselves() {
    let cloud = Cloud::new().await;
    let (admin, demo) = (cloud.token("admin").await, cloud.token("demo").await);
    let (own, other) = (project(&cloud, "demo").await, project(&cloud, "admin").await);
    let id = create(&cloud, &demo, "shared").await;
    let members = format!("{IMAGES}/{id}/members");
    assert_eq!(cloud.call(&demo, "POST", &members, json!({"member": other})).await.status, 200);
    let for_them = cloud.call(&demo, "PUT", &format!("{members}/{other}"), json!({"status": "accepted"})).await;
    assert_eq!(for_them.status, 403);
    assert_eq!(cloud.call(&demo, "PUT", &format!("{members}/{own}"), json!({"status": "accepted"})).await.status, 404);
    for body in [json!({}), json!({"member": ""}), json!({"member": 1}), json!([])] {
        assert_eq!(cloud.call(&demo, "POST", &members, body.clone()).await.status, 400, "{body}");
    }
    let wrong = cloud.call(&admin, "PUT", &format!("{members}/{other}"), json!({"status": "perhaps"})).await;
    assert_eq!(wrong.status, 400);
    // What is shown to demo is not demo's to show on.
    let foreign = create(&cloud, &admin, "shared").await;
    let members = format!("{IMAGES}/{foreign}/members");
    assert_eq!(cloud.call(&admin, "POST", &members, json!({"member": own})).await.status, 200);
    assert_eq!(cloud.call(&demo, "POST", &members, json!({"member": "x"})).await.status, 403);
    assert_eq!(cloud.call(&demo, "DELETE", &format!("{members}/{own}"), Value::Null).await.status, 403);
    // Only shared images have members.
    let private = create(&cloud, &demo, "private").await;
    assert_eq!(cloud.get(&demo, &format!("{IMAGES}/{private}/members")).await.status, 403);
    let refused = cloud.call(&demo, "POST", &format!("{IMAGES}/{private}/members"), json!({"member": other})).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn an_image_has_so_many_members_and_no_more() {
    let cloud = Cloud::new().await;
    let demo = cloud.token("demo").await;
    let id = create(&cloud, &demo, "shared").await;
    let members = format!("{IMAGES}/{id}/members");
    for number in 0..super::MOST {
        let body = json!({"member": format!("p{number}")});
        assert_eq!(cloud.call(&demo, "POST", &members, body).await.status, 200);
    }
    assert_eq!(cloud.call(&demo, "POST", &members, json!({"member": "one more"})).await.status, 413);
    for path in ["/image/v2/schemas/member", "/image/v2/schemas/members"] {
        assert_eq!(cloud.get(&demo, path).await.status, 200);
    }
}
