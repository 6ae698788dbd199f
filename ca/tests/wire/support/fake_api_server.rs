//! A fake API server: a small real HTTP server with as much of the Kubernetes API as the CA uses, whose
//! answers a test can spoil. What the real one does is tested against the real one elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, oneshot, watch};

mod store;

pub(crate) use store::{Key, key};
use store::{Query, Store, Target};

type Body = BoxBody<Bytes, Infallible>;

/// How the server behaves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mood {
    /// As it should.
    Well,
    /// Every request gets this code.
    Failing(u16),
    /// Requests of which the path contains this text are forbidden.
    Forbidding(&'static str),
    /// Nothing is ever answered.
    Silent,
}

struct State {
    store: Store,
    reviews: HashMap<String, Value>,
    /// Tokens about which no question is taken.
    refused_reviews: HashMap<String, u16>,
    mood: Mood,
    review_takes: Duration,
    /// Reads of Secrets wait here for each other, once.
    race: Option<Arc<Barrier>>,
    /// The first request that is this waits until the sender is gone.
    held: Option<(String, oneshot::Receiver<()>)>,
    /// Writes of Secrets that somebody else is faster than.
    conflicts: usize,
    requests: Vec<String>,
}

/// The running server. Its thread ends with the process.
#[derive(Clone)]
pub(crate) struct FakeApiServer {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
}

impl FakeApiServer {
    /// A server with the namespaces `namespaces`.
    pub(crate) fn start(namespaces: &[&str]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let state = State {
            store: Store::default(),
            reviews: HashMap::new(),
            refused_reviews: HashMap::new(),
            mood: Mood::Well,
            review_takes: Duration::ZERO,
            race: None,
            held: None,
            conflicts: 0,
            requests: Vec::new(),
        };
        let address = listener.local_addr().unwrap();
        let server = Self { address, state: Arc::new(Mutex::new(state)), changes: watch::channel(0).0 };
        for name in namespaces {
            server.namespace(name, json!({}));
        }
        let serving = server.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { serving.accept(TcpListener::from_std(listener).unwrap()).await });
        });
        server
    }

    /// A kubeconfig for it in `folder`, for namespace `ringmail-system`.
    pub(crate) fn kubeconfig(&self, folder: &Path) -> String {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "ca", "user": {"token": "the-ca-itself"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "ca", "namespace": "ringmail-system"}}],
        });
        let path = folder.join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.state().mood = mood;
        // Watches notice.
        self.changes.send_modify(|_| {});
    }

    /// The status of the review of `token`.
    pub(crate) fn review(&self, token: &str, status: Value) {
        self.state().reviews.insert(token.to_owned(), status);
    }

    /// A question about `token` gets this code.
    pub(crate) fn refuse_review(&self, token: &str, code: u16) {
        self.state().refused_reviews.insert(token.to_owned(), code);
    }

    pub(crate) fn reviews_take(&self, time: Duration) {
        self.state().review_takes = time;
    }

    /// The next `count` readers of Secrets read before any of them writes.
    pub(crate) fn race(&self, count: usize) {
        self.state().race = Some(Arc::new(Barrier::new(count)));
    }

    /// The next request that is `line`, such as `GET /api`, is answered once what this returns is dropped.
    pub(crate) fn hold(&self, line: &str) -> oneshot::Sender<()> {
        let (free, held) = oneshot::channel();
        self.state().held = Some((line.to_owned(), held));
        free
    }

    /// Somebody else is faster with the next `count` writes of Secrets.
    pub(crate) fn conflicts(&self, count: usize) {
        self.state().conflicts = count;
    }

    pub(crate) fn namespace(&self, name: &str, labels: Value) {
        let mut labels = labels;
        labels["kubernetes.io/metadata.name"] = json!(name);
        self.put(&key("namespaces", "", name), json!({ "metadata": { "labels": labels } }));
    }

    pub(crate) fn put(&self, key: &Key, object: Value) {
        self.state().store.put(key, object);
        self.changes.send_modify(|_| {});
    }

    pub(crate) fn delete(&self, key: &Key) {
        self.state().store.delete(key);
        self.changes.send_modify(|_| {});
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Value> {
        self.state().store.get(key).cloned()
    }

    /// Requests so far that begin with `prefix`, such as `PATCH /api`.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.state().requests.iter().filter(|request| request.starts_with(prefix)).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn accept(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let server = self.clone();
            tokio::task::spawn(async move {
                let service = service_fn(|request| server.clone().answer(request));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let line = format!("{} {path}", request.method());
        let (mood, held) = {
            let mut state = self.state();
            state.requests.push(line.clone());
            (state.mood.clone(), state.held.take_if(|(held, _)| *held == line))
        };
        if let Some((_, held)) = held {
            held.await.unwrap_err();
        }
        match mood {
            Mood::Silent => std::future::pending().await,
            Mood::Failing(code) => return Ok(status(code, "InternalError", "the fake fails")),
            Mood::Forbidding(text) if path.contains(text) => {
                return Ok(status(403, "Forbidden", &format!("{path} is forbidden")));
            }
            Mood::Forbidding(_) | Mood::Well => {}
        }
        if path == "/apis/authentication.k8s.io/v1/tokenreviews" {
            return Ok(self.reviewed(request).await);
        }
        let Some(target) = Target::of(&path) else { return Ok(status(404, "NotFound", "no such path")) };
        let query = Query::of(request.uri().query().unwrap_or_default());
        let method = request.method().clone();
        if target.key.resource == "secrets" && method == Method::GET && target.is_object() {
            let race = self.state().race.clone();
            if let Some(race) = race {
                race.wait().await;
                self.state().race = None;
            }
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok(match (method, target.is_object()) {
            (Method::GET, true) => self.read(&target),
            (Method::GET, false) if query.watch => self.watch(target, query),
            (Method::GET, false) => reply(200, &self.state().store.list(&target, &query)),
            (Method::POST, false) => self.create(target, body),
            (Method::PUT, true) => self.replace(&target, body),
            (Method::PATCH, true) => self.apply(&target, body),
            _ => status(405, "MethodNotAllowed", "not in this fake"),
        })
    }

    async fn reviewed(&self, request: Request<Incoming>) -> Response<Body> {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut review: Value = serde_json::from_slice(&body).unwrap();
        let takes = self.state().review_takes;
        tokio::time::sleep(takes).await;
        assert!(review["spec"]["audiences"].as_array().is_some_and(|a| !a.is_empty()), "{review}");
        let token = review["spec"]["token"].as_str().unwrap().to_owned();
        if let Some(code) = self.state().refused_reviews.get(&token) {
            return status(*code, "BadRequest", &format!("cannot make anything of {token}"));
        }
        let unknown = json!({ "authenticated": false, "error": format!("[invalid bearer token {token}]") });
        review["status"] = self.state().reviews.get(&token).cloned().unwrap_or(unknown);
        reply(201, &review)
    }

    fn read(&self, target: &Target) -> Response<Body> {
        match self.state().store.get(&target.key) {
            Some(object) => reply(200, object),
            None => status(404, "NotFound", "no such object"),
        }
    }

    fn create(&self, mut target: Target, object: Value) -> Response<Body> {
        target.key.name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if self.state().store.get(&target.key).is_some() {
            return status(409, "AlreadyExists", "it is there already");
        }
        self.put(&target.key, object);
        self.read(&target)
    }

    fn replace(&self, target: &Target, object: Value) -> Response<Body> {
        let Some(held) = self.get(&target.key) else { return status(404, "NotFound", "no such object") };
        let faster = {
            let mut state = self.state();
            let faster = target.key.resource == "secrets" && state.conflicts > 0;
            state.conflicts -= usize::from(faster);
            faster
        };
        if faster {
            self.put(&target.key, held.clone());
        }
        let current = self.get(&target.key).unwrap_or_default();
        let version = &object["metadata"]["resourceVersion"];
        if !version.is_null() && *version != current["metadata"]["resourceVersion"] {
            return status(409, "Conflict", "the object has been modified");
        }
        self.put(&target.key, object);
        self.read(target)
    }

    fn apply(&self, target: &Target, object: Value) -> Response<Body> {
        if self.state().store.get(&key("namespaces", "", &target.key.namespace)).is_none() {
            return status(404, "NotFound", "no such namespace");
        }
        self.put(&target.key, object);
        self.read(target)
    }

    /// Events after the asked version, for as long as the client listens and the server is well.
    fn watch(&self, target: Target, query: Query) -> Response<Body> {
        let (server, mut changes) = (self.clone(), self.changes.subscribe());
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(64);
        tokio::task::spawn(async move {
            let mut seen = query.version;
            loop {
                if server.state().mood != Mood::Well {
                    return;
                }
                let (events, newest) = server.state().store.since(&target, &query, seen);
                seen = newest;
                for event in events {
                    let line = Bytes::from(format!("{event}\n"));
                    if sender.send(Ok(Frame::data(line))).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        let frames = tokio_stream::wrappers::ReceiverStream::new(receiver);
        Response::new(BodyExt::boxed(StreamBody::new(frames)))
    }
}

fn reply(code: u16, object: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(object.to_string())).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    reply(code, &status)
}

/// The data of a Secret or ConfigMap as text.
pub(crate) fn data(object: &Value) -> BTreeMap<String, String> {
    use base64::Engine;
    let decoded = |value: &str| {
        let bytes = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
        String::from_utf8(bytes).ok()
    };
    let entries = object["data"].as_object().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let plain = object["kind"] == "ConfigMap";
    entries
        .iter()
        .map(|(k, v)| (k.clone(), if plain { text(v) } else { decoded(&text(v)).unwrap() }))
        .collect()
}
