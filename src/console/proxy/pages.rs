//! The pages: our own, and noVNC, xterm.js and spice-html5 as `dev/web` leaves them. All of it is read at start, so that a path is a key
//! and nothing else: it names no file, and no answer repeats it.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::ProxyOptions;
use super::server::plain;

/// Where `dev/web` leaves what it fetched, where this program was built.
const BUILT_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/web/dist");
/// Files, and bytes of all of them, that are read at most.
const MOST: (usize, usize) = (1000, 32 << 20);
/// The names under which clients know noVNC's page (`vnc.novncproxy_base_url`).
const SCREENS: [&str; 4] = ["/", "/vnc.html", "/vnc_auto.html", "/vnc_lite.html"];
const SERIAL: &str = "/serial.html";
/// Those under which clients know the page for SPICE (`spice.html5proxy_base_url`).
const SPICES: [&str; 2] = ["/spice.html", "/spice_auto.html"];

const OWN: [(&str, &str, &str); 9] = [
    ("/screen", "text/html; charset=utf-8", include_str!("../../../web/vnc.html")),
    ("/serial", "text/html; charset=utf-8", include_str!("../../../web/serial.html")),
    ("/spice", "text/html; charset=utf-8", include_str!("../../../web/spice.html")),
    ("/console/spice.js", JS, include_str!("../../../web/spice.js")),
    ("/console/screen.js", JS, include_str!("../../../web/screen.js")),
    ("/console/serial.js", JS, include_str!("../../../web/serial.js")),
    ("/console/keys.js", JS, include_str!("../../../web/keys.js")),
    ("/console/link.js", JS, include_str!("../../../web/link.js")),
    ("/console/console.css", "text/css; charset=utf-8", include_str!("../../../web/console.css")),
];
const JS: &str = "text/javascript; charset=utf-8";

const ABSENT: &str = "The pages of this proxy are not complete: noVNC, xterm.js or spice-html5 is missing. Run dev/web where it was \
                      built, or set console.web_root to a folder that dev/web has filled. Other clients can open \
                      websockets here.";

struct Page {
    content_type: &'static str,
    body: Bytes,
}

/// What a proxy shows to browsers.
#[derive(Default)]
pub struct Pages {
    files: BTreeMap<String, Page>,
    complete: bool,
}

impl Pages {
    /// Reads the folder, or the one where this program was built. What is missing there is told in the log, and to whoever
    /// opens the page.
    pub fn load(web_root: Option<&Path>) -> Self {
        let root = web_root.unwrap_or(Path::new(BUILT_IN));
        let mut files = BTreeMap::new();
        let mut left = MOST;
        for folder in ["novnc", "xterm", "spice"] {
            if let Err(error) = read(&root.join(folder), &format!("/{folder}"), &mut files, &mut left) {
                tracing::debug!(folder = %root.join(folder).display(), %error, "pages cannot be read");
            }
        }
        let needed = ["/novnc/core/rfb.js", "/xterm/xterm.js", "/spice/src/main.js"];
        let complete = needed.into_iter().all(|path| files.contains_key(path));
        if !complete {
            tracing::warn!(folder = %root.display(), "{ABSENT}");
        }
        for (path, content_type, text) in OWN {
            files.insert(path.to_owned(), Page { content_type, body: Bytes::from_static(text.as_bytes()) });
        }
        Self { files, complete }
    }

    /// Whether all is there that the pages need.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// What is at that path.
    pub(super) fn answer(&self, path: &str, head: bool, options: &ProxyOptions) -> Response<Full<Bytes>> {
        let key = match path {
            path if SCREENS.contains(&path) => "/screen",
            SERIAL => "/serial",
            // Only under the names that are given out.
            "/screen" | "/serial" | "/spice" => "",
            path if SPICES.contains(&path) => "/spice",
            path => path,
        };
        let Some(page) = self.files.get(key) else {
            return plain(StatusCode::NOT_FOUND, "There is nothing here.");
        };
        let is_page = page.content_type.starts_with("text/html");
        if is_page && !self.complete {
            return plain(StatusCode::SERVICE_UNAVAILABLE, ABSENT);
        }
        let mut response = Response::new(Full::new(if head { Bytes::new() } else { page.body.clone() }));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.content_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.body.len()));
        let keep = if is_page { "no-store" } else { "no-cache" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep));
        if is_page && let Ok(policy) = HeaderValue::from_str(&policy(key, options)) {
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }
}

/// Nothing from elsewhere, nothing inline; but xterm.js writes style sheets of its own, and spice-html5 plays videos that it has put
/// together and places them.
fn policy(page: &str, options: &ProxyOptions) -> String {
    let styles = if page == "/serial" { "'self' 'unsafe-inline'" } else { "'self'" };
    let media = if page == "/spice" { "style-src-attr 'unsafe-inline'; media-src blob:; " } else { "" };
    let plain = |origin: &&String| origin.chars().all(|c| c.is_ascii_alphanumeric() || ":/.-[]".contains(c));
    let frames: Vec<&str> = options.allowed_origins.iter().filter(plain).map(String::as_str).collect();
    format!(
        "default-src 'none'; script-src 'self'; style-src {styles}; img-src 'self' data:; {media}connect-src 'self'; \
         font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self' {}",
        frames.join(" ")
    )
}

fn content_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "js" | "mjs" => JS,
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

fn read(
    folder: &Path,
    prefix: &str,
    files: &mut BTreeMap<String, Page>,
    left: &mut (usize, usize),
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let (path, kind) = (format!("{prefix}/{name}"), entry.file_type()?);
        if kind.is_dir() {
            read(&entry.path(), &path, files, left)?;
        } else if kind.is_file()
            && let Some(content_type) = content_type(name)
        {
            let size = usize::try_from(entry.metadata()?.len()).unwrap_or(usize::MAX);
            let enough = left.0.checked_sub(1).zip(left.1.checked_sub(size));
            *left = enough.ok_or_else(|| std::io::Error::other("there is too much in the folder"))?;
            files.insert(path, Page { content_type, body: std::fs::read(entry.path())?.into() });
        }
    }
    Ok(())
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("files", &self.files.len()).field("complete", &self.complete).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pages: &Pages, path: &str) -> u16 {
        pages.answer(path, false, &ProxyOptions::default()).status().as_u16()
    }

    fn filled() -> (tempfile::TempDir, Pages) {
        let folder = tempfile::tempdir().unwrap();
        for path in [
            "novnc/core/rfb.js",
            "xterm/xterm.js",
            "spice/src/main.js",
            "novnc/.hidden.js",
            "novnc/a.html",
            "secret.js",
        ] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("novnc/link.js")).unwrap();
        let pages = Pages::load(Some(folder.path()));
        (folder, pages)
    }

    #[test]
    fn a_path_is_a_key_and_names_no_file() {
        let (_folder, pages) = filled();
        assert!(pages.is_complete());
        for known in ["/", "/vnc_auto.html", "/vnc.html", "/serial.html", "/spice_auto.html", "/console/spice.js"] {
            assert_eq!(status(&pages, known), 200, "{known}");
        }
        for unknown in [
            "//evil",
            "//evil/..",
            "/novnc",
            "/novnc/",
            "/novnc/../secret.js",
            "/secret.js",
            "/novnc/.hidden.js",
            "/novnc/link.js",
            "/novnc/a.html",
            "/screen",
            "/spice",
            "",
            "/%2e%2e/etc/passwd",
        ] {
            let answer = pages.answer(unknown, false, &ProxyOptions::default());
            assert_eq!(answer.status(), 404, "{unknown}");
            assert!(!answer.headers().contains_key("location"));
        }
    }

    #[test]
    fn pages_run_nothing_that_is_not_theirs() {
        let (_folder, pages) = filled();
        let allowed = vec!["https://dashboard".to_owned(), "x; script-src *".to_owned()];
        let options = ProxyOptions { allowed_origins: allowed, ..ProxyOptions::default() };
        for path in ["/vnc.html", "/serial.html", "/spice.html"] {
            let answer = pages.answer(path, true, &options);
            let policy = answer.headers()["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
            assert!(policy.ends_with("frame-ancestors 'self' https://dashboard"), "{policy}");
            assert_eq!(answer.headers()["cache-control"], "no-store");
        }
        for (_, _, text) in OWN {
            for foreign in ["http://", "https://", "style=", "onclick", "<script>"] {
                assert!(!text.contains(foreign), "{foreign}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let empty = tempfile::tempdir().unwrap();
        let pages = Pages::load(Some(empty.path()));
        assert!(!pages.is_complete());
        assert_eq!((status(&pages, "/vnc.html"), status(&pages, "/console/screen.js")), (503, 200));
    }
}
