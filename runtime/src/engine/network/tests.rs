//! The network for real, inside namespaces of its own: nothing of the node is touched. Needs root (CAP_NET_ADMIN,
//! CAP_SYS_ADMIN) and a kernel with bridges, veth and nftables; fails without.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::*;

#[test]
fn subnets_have_their_addresses() {
    let subnet: Subnet = "10.1.2.8/29".parse().unwrap();
    assert_eq!(subnet.to_string(), "10.1.2.8/29");
    assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 1, 2, 9));
    assert_eq!(subnet.hosts().map(|ip| ip.octets()[3]).collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
    assert!(!subnet.has(Ipv4Addr::new(10, 1, 2, 15)) && !subnet.has(Ipv4Addr::new(10, 1, 2, 9)));
    assert_eq!("10.244.77.0/24".parse(), Ok(Subnet::DEFAULT));
    for bad in ["", "10.1.2.3", "10.1.2.3/24", "10.0.0.0/8", "10.0.0.0/30", "127.0.0.0/24", "x/24", "::/64"] {
        assert!(bad.parse::<Subnet>().is_err(), "{bad}");
    }
}

/// A node of its own: a namespace in which the thread of the test lives, with two pods.
struct World {
    temp: tempfile::TempDir,
}

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Runs on the node.
    fn on_node<T: Send + 'static>(&self, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> T {
        netns::inside(&self.path("node"), work).unwrap()
    }

    /// Answers every connection in this namespace with what it reads, once, turned to upper case, and the peer's address.
    fn serve(&self, place: &str, address: &'static str) -> std::thread::JoinHandle<io::Result<SocketAddr>> {
        let listener = netns::inside(&self.path(place), move || TcpListener::bind(address)).unwrap();
        std::thread::spawn(move || {
            let (mut stream, peer) = listener.accept()?;
            let mut text = [0; 2];
            stream.read_exact(&mut text)?;
            stream.write_all(&text.map(|b| b.to_ascii_uppercase()))?;
            Ok(peer)
        })
    }

    /// Says something from one place to an address and gives the answer.
    fn ask(&self, place: &str, address: &'static str) -> io::Result<String> {
        netns::inside(&self.path(place), move || {
            let address: SocketAddr = address.parse().map_err(io::Error::other)?;
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.write_all(b"hi")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in ["node", "a", "b", "outside"] {
            let _ = netns::remove(&self.path(name));
        }
    }
}

#[test]
fn pods_reach_the_world_and_the_world_their_ports() {
    let world = World { temp: tempfile::tempdir().unwrap() };
    netns::make(&world.path("node")).expect("needs root");
    let settings = Settings { expose: vec![18_883], ..Settings::default() };
    let (ip_a, ip_b) = (Ipv4Addr::new(10, 244, 77, 2), Ipv4Addr::new(10, 244, 77, 3));
    let (path_a, path_b, outside) = (world.path("a"), world.path("b"), world.path("outside"));
    let port = |protocol, host_port, pod_port| HostPort { protocol, host_ip: None, host_port, pod_port };
    let pods = BTreeMap::from([
        (
            "a".to_owned(),
            Attachment { ip: Some(ip_a), ports: vec![port(Protocol::Tcp, 8080, 80), port(Protocol::Udp, 5353, 53)] },
        ),
        ("b".to_owned(), Attachment { ip: Some(ip_b), ports: vec![] }),
    ]);
    let (s, p) = (settings.clone(), pods.clone());
    world.on_node(move || {
        // The outside: another bridge on which this node has 192.0.2.1 and a stranger 192.0.2.2.
        link::bridge("out0", "192.0.2.0/24".parse().map_err(io::Error::other)?)?;
        netns::make(&outside)?;
        link::veth("evout", "out0", &outside)?;
        let subnet: Subnet = "192.0.2.0/24".parse().map_err(io::Error::other)?;
        netns::inside(&outside, move || link::configure(Ipv4Addr::new(192, 0, 2, 2), subnet))?;
        for _ in 0..2 {
            // Twice: everything can be repeated.
            join(&s, &path_a, "eva", ip_a).map_err(io::Error::other)?;
            join(&s, &path_b, "evb", ip_b).map_err(io::Error::other)?;
            rules::send(&rules::batch(&s, &p))?;
        }
        link::up("lo")
    });
    // From a pod to the outside, with the node's address.
    let server = world.serve("outside", "0.0.0.0:7000");
    assert_eq!(world.ask("a", "192.0.2.2:7000").unwrap(), "HI");
    assert_eq!(server.join().unwrap().unwrap().ip(), Ipv4Addr::new(192, 0, 2, 1));
    // From pod to pod, with its own address.
    let server = world.serve("b", "0.0.0.0:7000");
    assert_eq!(world.ask("a", "10.244.77.3:7000").unwrap(), "HI");
    assert_eq!(server.join().unwrap().unwrap().ip(), ip_a);
    // The host port: from outside, from the node's own address and loopback, from another pod, from the pod itself.
    let asks = [
        ("outside", "192.0.2.1:8080"),
        ("node", "192.0.2.1:8080"),
        ("node", "127.0.0.1:8080"),
        ("b", "192.0.2.1:8080"),
        ("a", "192.0.2.1:8080"),
        ("b", "10.244.77.1:8080"),
    ];
    for (from, to) in asks {
        let server = world.serve("a", "0.0.0.0:80");
        assert_eq!(world.ask(from, to).unwrap_or_else(|e| panic!("{from} {to}: {e}")), "HI");
        server.join().unwrap().unwrap();
    }
    // UDP, too.
    let udp = netns::inside(&world.path("a"), || UdpSocket::bind("0.0.0.0:53")).unwrap();
    netns::inside(&world.path("outside"), || UdpSocket::bind("0.0.0.0:0")?.send_to(b"hi", "192.0.2.1:5353")).unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(udp.recv(&mut [0; 8]).unwrap(), 2);
    // The exposed port of the node's loopback, at the gateway's address; and nothing else of loopback.
    let server = world.serve("node", "127.0.0.1:18883");
    assert_eq!(world.ask("b", "10.244.77.1:18883").unwrap(), "HI");
    assert_eq!(server.join().unwrap().unwrap().ip(), ip_b);
    let hidden = netns::inside(&world.path("node"), || TcpListener::bind("127.0.0.1:7001")).unwrap();
    assert_eq!(world.ask("b", "10.244.77.1:7001").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    drop(hidden);
    // Removal leaves nothing, and can be repeated.
    for _ in 0..2 {
        world.on_node(|| {
            link::remove("eva")?;
            link::remove("edge0")?;
            rules::remove(&rules::table("edge0"))
        });
    }
    let gone = netns::inside(&world.path("a"), move || Ok(link::configure(ip_a, Subnet::DEFAULT))).unwrap();
    assert!(gone.is_err(), "the pod's end goes with the node's");
}

#[tokio::test]
async fn ports_and_addresses_are_given_once() {
    let port = HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 80, pod_port: 80 };
    let has = Attachment { ip: Some(Ipv4Addr::new(10, 1, 2, 10)), ports: vec![port] };
    let settings = Settings { subnet: "10.1.2.8/29".parse().unwrap(), ..Settings::default() };
    let network = Network::new(settings, BTreeMap::from([("a".to_owned(), has)]));
    let path = Path::new("/nowhere");
    let error = network.attach("b", path, &[port]).await.unwrap_err();
    assert!(matches!(error, NetworkError::PortTaken { port: 80 }), "{error}");
    let other = HostPort { host_ip: Some(Ipv4Addr::new(192, 0, 2, 1)), ..port };
    assert!(matches!(network.attach("b", path, &[other]).await, Err(NetworkError::PortTaken { .. })));
    let mut pods = network.pods.lock().await;
    for (n, ip) in "10.1.2.8/29".parse::<Subnet>().unwrap().hosts().enumerate() {
        pods.insert(n.to_string(), Attachment { ip: Some(ip), ports: vec![] });
    }
    drop(pods);
    assert!(matches!(network.attach("b", path, &[]).await, Err(NetworkError::Full(_))));
    assert_eq!(veth("some uid").len(), 14);
}
