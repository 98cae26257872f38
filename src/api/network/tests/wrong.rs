//! What users get wrong, and much of something.

use super::*;

#[tokio::test]
async fn ranges_and_addresses_that_cannot_be() {
    let bench = Bench::new();
    let (network, subnet) = wired(&bench, DEMO, "10.0.0.0/29").await;
    let subnet_of = |cidr: &str| json!({"subnet": {"network_id": id(&network), "cidr": cidr, "ip_version": 4}});
    for (cidr, wanted) in [
        ("10.0.0.4/30", refusal(400, "InvalidInput")),
        ("10.0.0.0/8", refusal(400, "InvalidInput")),
        ("10.0.0.0/33", refusal(400, "HTTPBadRequest")),
        ("10.0.0", refusal(400, "HTTPBadRequest")),
        ("fd00::/64", refusal(400, "HTTPBadRequest")),
        ("", refusal(400, "HTTPBadRequest")),
    ] {
        assert_eq!(bench.refused(DEMO, "POST /subnets", subnet_of(cidr)).await, wanted, "{cidr}");
    }
    let port = |fixed: Value| json!({"port": {"network_id": id(&network), "fixed_ips": [fixed]}});
    for (fixed, wanted) in [
        (json!({"ip_address": "10.0.1.1"}), refusal(400, "InvalidIpForNetwork")),
        (json!({"ip_address": "10.0.1.1", "subnet_id": id(&subnet)}), refusal(400, "InvalidIpForSubnet")),
        (json!({"ip_address": "x"}), refusal(400, "HTTPBadRequest")),
        (json!({}), refusal(400, "HTTPBadRequest")),
    ] {
        assert_eq!(bench.refused(DEMO, "POST /ports", port(fixed.clone())).await, wanted, "{fixed}");
    }
    // Five addresses, and then none.
    let many: Vec<Value> = (0..6).map(|_| json!({ "network_id": id(&network) })).collect();
    assert_eq!(
        bench.refused(DEMO, "POST /ports", json!({ "ports": many })).await,
        refusal(409, "IpAddressGenerationFailure")
    );
    assert_eq!(bench.get(DEMO, "/ports").await["ports"], json!([]), "all or none");
    for _ in 0..5 {
        bench.make(DEMO, "/ports", "port", json!({ "network_id": id(&network) })).await;
    }
    let one_more = json!({"port": { "network_id": id(&network) }});
    assert_eq!(bench.refused(DEMO, "POST /ports", one_more).await, refusal(409, "IpAddressGenerationFailure"));
    let foreign = json!({"port": { "network_id": id(&network) }});
    assert_eq!(bench.refused(OTHER, "POST /ports", foreign).await, refusal(404, "NetworkNotFound"));
}

#[tokio::test]
async fn ten_thousand_rules_take_a_quota_and_then_page() {
    let bench = Bench::new();
    let group = bench.make(DEMO, "/security-groups", "security_group", json!({"name": "large"})).await;
    let rules = |from: usize| {
        let one = |n: usize| {
            json!({"security_group_id": id(&group), "direction": "ingress", "protocol": "tcp",
                "port_range_min": n % 60_000 + 1, "port_range_max": n % 60_000 + 1,
                "remote_ip_prefix": format!("10.{}.{}.0/24", n / 250, n % 250)})
        };
        json!({"security_group_rules": (from..from + 250).map(one).collect::<Vec<_>>()})
    };
    assert_eq!(bench.refused(DEMO, "POST /security-group-rules", rules(0)).await, refusal(409, "OverQuota"));
    let quota = json!({"quota": {"security_group_rule": -1}});
    assert_eq!(bench.call(ADMIN, "PUT /quotas/p-demo", quota).await.0, 200);
    let too_many = json!({"security_group_rules": vec![json!({}); 1001]});
    assert_eq!(bench.refused(DEMO, "POST /security-group-rules", too_many).await, refusal(400, "HTTPBadRequest"));
    for from in (0..10_000).step_by(250) {
        let (status, answer) = bench.call(DEMO, "POST /security-group-rules", rules(from)).await;
        assert_eq!(status, 201, "{answer}");
    }
    let mut path = format!("/security-group-rules?security_group_id={}&limit=1000", id(&group));
    let (mut seen, mut pages) = (std::collections::BTreeSet::new(), 0);
    loop {
        let page = bench.get(DEMO, &path).await;
        let list = page["security_group_rules"].as_array().unwrap();
        seen.extend(list.iter().map(|rule| rule["id"].as_str().unwrap().to_owned()));
        pages += 1;
        let links = page["security_group_rules_links"].as_array().cloned().unwrap_or_default();
        let Some(next) = links.iter().find(|link| link["rel"] == "next") else { break };
        path = next["href"].as_str().unwrap().split_once("/v2.0").unwrap().1.to_owned();
    }
    // Two of every group let everything out.
    assert_eq!((seen.len(), pages), (10_002, 11));
    let brief = bench.get(DEMO, &format!("/security-groups/{}?fields=name", id(&group))).await;
    assert_eq!(brief["security_group"], json!({"name": "large"}));
}
