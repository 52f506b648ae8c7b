//! What a call asks of the host, written down for whoever wants to know: the conformance kit, and recordings.
//!
//! A tape runs in a task-local: a call that nobody listens to pays one look, and neither the gateway nor the state of a
//! call has to carry it. A tape may also answer the requests itself ([`Peer`]), in the place of the network and after all
//! that `http.send` checks.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bindings::http as wit;

/// A plugin may make many calls that are not bounded otherwise, such as `config.get`.
const MAX_CALLS: usize = 1_000;

tokio::task_local! {
    static TAPE: Arc<Tape>;
}

/// One thing that a plugin asked of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the names say it; wit/payment.wit describes each function"
)]
pub enum HostCall {
    /// A line of the log, without secrets.
    Log { level: String, message: String },
    /// A setting of the account.
    Config { name: String, found: bool },
    /// A secret was shown to the plugin.
    RevealSecret { name: String, found: bool },
    /// A request.
    Http(Box<Exchange>),
    /// A hash or signature; `key` names a secret, or says that the plugin brought its own.
    Crypto {
        function: String,
        key: Option<String>,
        bytes: usize,
        ok: bool,
    },
    /// Random bytes.
    Random { bytes: u32 },
    /// The exponent of a currency.
    Currency { code: String },
    /// The plugin's memory between calls.
    CacheGet { key: String, found: bool },
    /// The same.
    CacheSet { key: String, bytes: usize, seconds: u32 },
}

/// A request and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// What was asked.
    pub request: HttpRequest,
    /// What came back.
    pub answer: HttpAnswer,
    /// How long it took.
    pub micros: u64,
}

/// A request of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct HttpRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, Text)>,
    pub body: Text,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "is", rename_all = "snake_case")]
pub enum HttpAnswer {
    /// An answer of the gateway.
    Response(HttpResponse),
    /// The host did not send it.
    Denied(String),
    /// The gateway saw nothing.
    NotSent(String),
    /// It was sent, and no complete answer came.
    OutcomeUnknown(String),
    /// Too many bytes.
    TooLarge(u64),
}

/// A gateway's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct HttpResponse {
    pub status: u16,
    pub headers: Vec<(String, Text)>,
    pub body: Text,
}

/// Bytes, which in JSON are a text when they are one.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Text(pub Vec<u8>);

impl Text {
    /// As text, as far as it is one.
    pub fn lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.lossy())
    }
}

#[derive(Serialize, Deserialize)]
struct Encoded {
    base64: String,
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded {
                base64: BASE64.encode(&self.0),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Plain(String),
            Encoded(Encoded),
        }
        match Either::deserialize(deserializer)? {
            Either::Plain(text) => Ok(Self(text.into_bytes())),
            Either::Encoded(Encoded { base64 }) => BASE64.decode(base64).map(Self).map_err(D::Error::custom),
        }
    }
}

/// Who answers requests in the place of the network.
pub(super) trait Peer: Send + Sync {
    fn answer(&self, request: &HttpRequest) -> HttpAnswer;
}

/// What one call did.
pub(super) struct Tape {
    peer: Option<Arc<dyn Peer>>,
    written: Mutex<Written>,
    memory: AtomicUsize,
}

#[derive(Default)]
struct Written {
    calls: Vec<HostCall>,
    /// Why the guest gave no answer.
    failure: Option<String>,
}

impl Tape {
    pub(super) fn new(peer: Option<Arc<dyn Peer>>) -> Arc<Self> {
        Arc::new(Self {
            peer,
            written: Mutex::default(),
            memory: AtomicUsize::new(0),
        })
    }

    /// Runs a call with this tape.
    pub(super) async fn during<T>(self: &Arc<Self>, call: impl Future<Output = T>) -> T {
        TAPE.scope(Arc::clone(self), call).await
    }

    pub(super) fn calls(&self) -> Vec<HostCall> {
        self.written().calls.clone()
    }

    /// Why the guest gave no answer, if it gave none.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn failure(&self) -> Option<String> {
        self.written().failure.clone()
    }

    /// The memory that the guest took, at its end and therefore at most.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }

    pub(super) fn peer(&self) -> Option<&Arc<dyn Peer>> {
        self.peer.as_ref()
    }

    pub(super) fn http(
        &self,
        request: HttpRequest,
        answer: &Result<wit::Response, wit::HttpError>,
        took: Duration,
    ) {
        self.write(HostCall::Http(Box::new(Exchange {
            request,
            answer: HttpAnswer::of(answer),
            micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        })));
    }

    fn write(&self, call: HostCall) {
        let mut written = self.written();
        if written.calls.len() < MAX_CALLS {
            written.calls.push(call);
        }
    }

    /// A panic while it was held can at most have lost a line.
    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tape of the call that runs.
pub(super) fn current() -> Option<Arc<Tape>> {
    TAPE.try_with(Arc::clone).ok()
}

/// Writes down what `call` makes, if anybody wants to know.
pub(super) fn note(call: impl FnOnce() -> HostCall) {
    // The guest may ask a thousand things, so nothing is made for nobody.
    let _ = TAPE.try_with(|tape| tape.write(call()));
}

/// The guest's memory grew.
pub(super) fn grew(bytes: usize) {
    let _ = TAPE.try_with(|tape| tape.memory.fetch_add(bytes, Ordering::Relaxed));
}

/// The guest trapped, ran out of time or broke the contract.
pub(super) fn failed(cause: &str) {
    let _ = TAPE.try_with(|tape| tape.written().failure = Some(cause.to_owned()));
}

impl From<&wit::Request> for HttpRequest {
    fn from(request: &wit::Request) -> Self {
        Self {
            method: request.method.clone(),
            url: request.url.clone(),
            headers: texts(&request.headers),
            body: Text(request.body.clone()),
        }
    }
}

impl HttpAnswer {
    fn of(answer: &Result<wit::Response, wit::HttpError>) -> Self {
        match answer {
            Ok(response) => Self::Response(HttpResponse {
                status: response.status,
                headers: texts(&response.headers),
                body: Text(response.body.clone()),
            }),
            Err(wit::HttpError::Denied(why)) => Self::Denied(why.clone()),
            Err(wit::HttpError::NotSent(why)) => Self::NotSent(why.clone()),
            Err(wit::HttpError::OutcomeUnknown(why)) => Self::OutcomeUnknown(why.clone()),
            Err(wit::HttpError::TooLarge(bytes)) => Self::TooLarge(*bytes),
        }
    }

    pub(super) fn into_wit(self) -> Result<wit::Response, wit::HttpError> {
        Err(match self {
            Self::Response(response) => {
                return Ok(wit::Response {
                    status: response.status,
                    headers: response
                        .headers
                        .into_iter()
                        .map(|(name, value)| (name, value.0))
                        .collect(),
                    body: response.body.0,
                });
            }
            Self::Denied(why) => wit::HttpError::Denied(why),
            Self::NotSent(why) => wit::HttpError::NotSent(why),
            Self::OutcomeUnknown(why) => wit::HttpError::OutcomeUnknown(why),
            Self::TooLarge(bytes) => wit::HttpError::TooLarge(bytes),
        })
    }
}

fn texts(pairs: &[(String, Vec<u8>)]) -> Vec<(String, Text)> {
    let text = |(name, value): &(String, Vec<u8>)| (name.clone(), Text(value.clone()));
    pairs.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_json() {
        for bytes in [&b"plain"[..], b"", &[0xff, 0x00, 0x41]] {
            let json = serde_json::to_string(&Text(bytes.to_vec())).unwrap();
            assert_eq!(serde_json::from_str::<Text>(&json).unwrap().0, bytes, "{json}");
        }
    }

    #[tokio::test]
    async fn a_tape_hears_its_own_call_alone() {
        let tape = Tape::new(None);
        note(|| HostCall::Random { bytes: 1 });
        tape.during(async {
            note(|| HostCall::Random { bytes: 2 });
            grew(10);
            grew(5);
            failed("it trapped");
        })
        .await;
        note(|| HostCall::Random { bytes: 3 });
        assert_eq!(tape.calls(), [HostCall::Random { bytes: 2 }]);
        assert_eq!(tape.memory(), 15);
        assert_eq!(tape.failure().as_deref(), Some("it trapped"));
    }
}
