//! A mail server of a few words that asks for a password and keeps what it gets.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Default)]
pub struct Mailbox {
    mails: Arc<Mutex<Vec<String>>>,
    /// What was said to log in.
    pub logins: Arc<Mutex<Vec<String>>>,
}

impl Mailbox {
    /// Takes mails in, at this port, as long as the runtime runs.
    pub async fn open() -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mailbox = Self::default();
        let at_door = mailbox.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mailbox = at_door.clone();
                // A client that goes away in the middle is no fault of the test.
                tokio::spawn(async move { drop(mailbox.serve(stream).await) });
            }
        });
        (mailbox, port)
    }

    /// The token in the mail to this address, when it has come.
    pub fn token_for(&self, address: &str) -> Option<String> {
        let mails = self.mails.lock().unwrap();
        let mail = mails
            .iter()
            .rfind(|mail| mail.contains(&format!("To: {address}")))?;
        // Quoted-printable: long lines are broken, and so is the equals sign.
        let plain = mail.replace("=\r\n", "").replace("=3D", "=");
        let (_, rest) = plain.split_once("/verify?token=")?;
        Some(rest.split(['\r', '"', ' ', '<']).next()?.to_owned())
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 here\r\n").await?;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let word = line.split_ascii_whitespace().next().unwrap_or_default();
            let answer: &[u8] = match word {
                "EHLO" => b"250-here\r\n250-8BITMIME\r\n250 AUTH PLAIN\r\n",
                "AUTH" => {
                    self.logins.lock().unwrap().push(line.trim().to_owned());
                    b"235 welcome\r\n"
                }
                "DATA" => {
                    stream.write_all(b"354 go on\r\n").await?;
                    let mail = read_mail(&mut stream).await?;
                    self.mails.lock().unwrap().push(mail);
                    b"250 kept\r\n"
                }
                "QUIT" => b"221 bye\r\n",
                _ => b"250 ok\r\n",
            };
            stream.write_all(answer).await?;
        }
    }
}

async fn read_mail(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut mail = String::new();
    while !mail.ends_with("\r\n.\r\n") {
        if stream.read_line(&mut mail).await? == 0 {
            break;
        }
    }
    Ok(mail)
}
