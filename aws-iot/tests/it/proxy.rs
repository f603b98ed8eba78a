//! A proxy before the emulator that refuses some calls as AWS does, or lets something happen before or after one.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What is done with a call; it is told the number of the call, from 1, and its first line.
pub(crate) type Rule = dyn FnMut(usize, &str) -> Act + Send;

/// What is done with a call.
pub(crate) enum Act {
    /// It reaches the emulator.
    Pass,
    /// It is answered with this status and AWS error.
    Refuse(u16, &'static str),
    /// It does not reach the emulator, and is not answered.
    Drop,
    /// It reaches the emulator, and is not answered.
    PassAndDrop,
}

/// A proxy; it lives until the test ends.
pub(crate) struct Proxy {
    pub(crate) url: String,
}

impl Proxy {
    pub(crate) fn start(rule: impl FnMut(usize, &str) -> Act + Send + 'static) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let rule: Arc<Mutex<(usize, Box<Rule>)>> = Arc::new(Mutex::new((0, Box::new(rule))));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let rule = rule.clone();
                thread::spawn(move || serve(stream, &rule));
            }
        });
        Proxy { url }
    }
}

/// One message: its head and its body.
fn message(reader: &mut impl BufRead) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        head.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let mut body = Vec::new();
    if let Some(length) = header("content-length") {
        body.resize(length.parse().ok()?, 0);
        reader.read_exact(&mut body).ok()?;
    } else if header("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            body.extend(line.as_bytes());
            let length = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; length + 2];
            reader.read_exact(&mut chunk).ok()?;
            body.extend(chunk);
            if length == 0 {
                break;
            }
        }
    }
    Some((head, body))
}

fn serve(client: TcpStream, rule: &Mutex<(usize, Box<Rule>)>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut client = client;
    while let Some((head, body)) = message(&mut reader) {
        let act = {
            let mut rule = rule.lock().unwrap();
            rule.0 += 1;
            let number = rule.0;
            (rule.1)(number, head.lines().next().unwrap_or_default())
        };
        if let Act::Refuse(status, code) = act {
            let body = format!("{{\"message\":\"Rate exceeded\",\"__type\":\"{code}\"}}");
            let answer = format!(
                "HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\nx-amzn-errortype: {code}\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            if client.write_all(answer.as_bytes()).is_err() {
                return;
            }
            continue;
        }
        if matches!(act, Act::Drop) {
            return;
        }
        let Ok(mut emulator) = TcpStream::connect("127.0.0.1:4566") else { return };
        let mut answers = BufReader::new(emulator.try_clone().unwrap());
        if emulator.write_all(head.as_bytes()).and_then(|()| emulator.write_all(&body)).is_err() {
            return;
        }
        let Some((head, body)) = message(&mut answers) else { return };
        if matches!(act, Act::PassAndDrop) {
            return;
        }
        if client.write_all(head.as_bytes()).and_then(|()| client.write_all(&body)).is_err() {
            return;
        }
    }
}
