//! `overnet-cni`: the plugin of the Container Network Interface, which is `ovnctl` under another
//! name. Podman, nerdctl and others attach their containers to overlay networks by it.
//!
//! [`request`] is what the runtime asks (environment and standard input), [`answer`] what it gets.

mod answer;
mod request;
mod verbs;

use tokio::io::AsyncReadExt as _;

use crate::session::{Io, Surroundings};

use self::answer::Refusal;
pub use self::request::Request;

/// The name that it is called by.
pub const PROGRAM: &str = "overnet-cni";
/// Bytes of a network configuration; real ones have some hundreds.
const LONGEST: u64 = 1 << 20;

/// One call of a runtime; the exit status.
pub async fn run(surroundings: &Surroundings, io: &Io) -> i32 {
    let (text, status) = match carry_out(surroundings, io).await {
        Ok(text) => (text, 0),
        Err((version, refusal)) => (answer::refusal(&version, &refusal), 1),
    };
    // Whoever does not read the answer has the status.
    if !text.is_empty() && io.out.put(text.as_bytes()).is_err() {
        return 1;
    }
    status
}

/// The answer, or why there is none, in the version of the question.
async fn carry_out(surroundings: &Surroundings, io: &Io) -> Result<String, (String, Refusal)> {
    let newest = || answer::NEWEST.to_owned();
    let input = read(io).await.map_err(|refusal| (newest(), refusal))?;
    let request = Request::read(&surroundings.variables, &input);
    let request = request.map_err(|refusal| (request::version_of(&input), refusal))?;
    let version = request.version.clone();
    let answered = verbs::carry_out(request, &surroundings.variables).await;
    answered.map_err(|refusal| (version, refusal))
}

async fn read(io: &Io) -> Result<Vec<u8>, Refusal> {
    let failed = |text: String| Refusal::new(answer::IO, "standard input cannot be read", text);
    let input = io.take_input();
    let input = input.map_err(|failure| failed(failure.text().to_owned()))?;
    let mut bytes = Vec::new();
    let read = input.take(LONGEST + 1).read_to_end(&mut bytes).await;
    read.map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > LONGEST {
        return Err(Refusal::new(
            answer::NOT_READ,
            "the network configuration is too long",
            format!("at most {LONGEST} bytes are read"),
        ));
    }
    Ok(bytes)
}
