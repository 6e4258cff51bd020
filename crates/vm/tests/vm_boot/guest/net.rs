//! The network program of the test guests: built by the test with `rustc`, static, without crates.
//!
//! `net tcp|udp ADDRESS:PORT` says a word there and prints the answer or `none`; `net serve PORT` answers words on TCP
//! and UDP, IPv4 and IPv6, and on the TCP port after it speaks first.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match [words[0].as_str(), words[1].as_str()] {
        ["serve", port] => serve(port.parse().unwrap()),
        [kind, address] => {
            let answer = ask(kind, address.parse().unwrap()).unwrap_or_else(|error| format!("none ({error})"));
            println!("RESULT {kind} {address} {answer}");
        }
    }
}

fn ask(kind: &str, address: SocketAddr) -> std::io::Result<String> {
    let limit = Some(Duration::from_secs(3));
    let mut buffer = [0; 64];
    let count = if kind == "tcp" {
        let mut stream = TcpStream::connect_timeout(&address, limit.unwrap())?;
        stream.set_read_timeout(limit)?;
        stream.write_all(b"word")?;
        stream.read(&mut buffer)?
    } else {
        let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(limit)?;
        socket.send_to(b"word", address)?;
        socket.recv_from(&mut buffer)?.0
    };
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

fn serve(port: u16) {
    // One socket for both families, as the kernel's default is.
    let listener = TcpListener::bind(("::", port)).unwrap();
    let socket = UdpSocket::bind(("::", port)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&[b"guest-udp ", &buffer[..count]].concat(), peer);
        }
    });
    let first = TcpListener::bind(("::", port + 1)).unwrap();
    std::thread::spawn(move || {
        for mut stream in first.incoming().flatten() {
            std::thread::spawn(move || greet(&mut stream));
        }
    });
    for mut stream in listener.incoming().flatten() {
        let mut buffer = [0; 64];
        let Ok(count) = stream.read(&mut buffer) else { continue };
        let _ = stream.write_all(&[b"guest-tcp ", &buffer[..count]].concat());
    }
}

/// A greeting of 40 lines, longer than a first window; then what is said comes back.
fn greet(stream: &mut TcpStream) -> std::io::Result<()> {
    for line in 0..40 {
        writeln!(stream, "{line:02} {:.>500}", "")?;
    }
    let mut buffer = [0; 64];
    let count = stream.read(&mut buffer)?;
    stream.write_all(&[b"heard ", &buffer[..count]].concat())
}
