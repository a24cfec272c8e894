//! Profiles, and what a file can say that a text can't.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lb::config::{BadConfig, Config, Environment, Layers, Origin, PROFILES, RuntimeConfig};

/// A file with this text, in a folder of its own.
struct File(tempfile::TempDir);

impl File {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("lb.toml"), text).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("lb.toml")
    }
}

fn layers(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: Option<&Path>) -> Layers {
    let flags: BTreeMap<_, _> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let environment: Environment =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Layers::new(&flags, &environment, file)
}

/// A setting's value and where it comes from.
fn found(layers: &Layers, key: &str) -> (String, Origin) {
    let (value, origin) = layers.get(key).unwrap_or_else(|| panic!("{key} has no value"));
    (value.to_owned(), origin.clone())
}

fn config(flags: &[(&'static str, &str)], file: &str) -> Result<Config, BadConfig> {
    Config::new(layers(flags, &[], Some(&File::new(file).path())), None)
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_profile_of_the_file_beats_the_file_which_beats_what_is_built_in() {
    let file = File::new(
        "slots = 1000\nvnodes = 5\nspares = 3\nreplicas = 2\nbound = 1.5\n[profile.production]\nvnodes = 6\n\
         replicas = 4\nbound = 1.75\nlog_format = \"text\"\n[profile.slim]\nvnodes = 7\n",
    );
    let path = file.path();
    let flags = [("profile", "production"), ("bound", "2")];
    let read = layers(&flags, &[("LB_REPLICAS", "5"), ("LB_PROFILE", "slim")], Some(&path));
    let (top, table) = (Origin::File(path.clone()), Origin::FileProfile(path.clone(), "production".into()));
    for (key, value, origin) in [
        ("profile", "production", Origin::Flag),
        ("bound", "2", Origin::Flag),
        ("replicas", "5", Origin::Environment),
        ("vnodes", "6", table.clone()),
        ("log_format", "text", table),
        ("slots", "1000", top.clone()),
        ("spares", "3", top),
        ("outliers", "on", Origin::Profile("production")),
        ("hash", "assignment", Origin::Default),
    ] {
        assert_eq!(found(&read, key), (value.into(), origin), "{key}");
    }
    assert!(Config::new(read, None).is_ok());
    // Without a profile the tables say nothing.
    assert_eq!(found(&layers(&[], &[], Some(&path)), "vnodes").0, "5");
    assert_eq!(found(&layers(&[], &[("LB_PROFILE", "slim")], Some(&path)), "vnodes").0, "7");
}

#[test]
fn a_file_names_its_profile() {
    for (text, spares) in [
        ("profile = \"production\"", "1"),
        ("profile.use = \"own\"\n[profile.own]\nspares = 7\n", "7"),
        ("[profile]\nuse = \"own\"\nown.spares = 7\n", "7"),
        // Of that name, too.
        ("[profile.use]\nspares = 7\n", "0"),
        ("[profile.own]\nspares = 7\n", "0"),
    ] {
        let file = File::new(text);
        let read = layers(&[], &[], Some(&file.path()));
        assert!(read.problems.is_empty(), "{text}: {:?}", read.problems);
        assert_eq!(found(&read, "spares").0, spares, "{text}");
    }
    let file = File::new("profile = \"slim\"");
    let read = layers(&[], &[("LB_PROFILE", "production")], Some(&file.path()));
    assert_eq!(found(&read, "spares"), ("1".into(), Origin::Profile("production")));
}

#[test]
fn what_is_wrong_with_profiles_is_said_also_of_those_not_in_use() {
    let names = "production, development, slim, own; a file has others as [profile.NAME]";
    for (text, says) in [
        ("[profile.own]\nslotz = 5\n", &["unknown key 'profile.own.slotz' = 5", "did you mean 'slots'?"][..]),
        ("[profile.slim]\nprofile = \"own\"\n", &["'profile.slim.profile' is \"own\"", "allowed: any other setting"]),
        ("[profile.own]\nslots = [[1]]\n", &["'profile.own.slots' is [[1]]", "allowed: a text, a number"]),
        ("[profile.own]\nagent_token = []\ncontrol_token = {a = 1}", &["'profile.own.control_token' is (not shown)"]),
        ("[profile]\nown = 5\n", &["'profile.own' is 5", "[profile.own]", "use = \"NAME\""]),
        ("profile = \"prod\"", &["profile is 'prod'", "production, development, slim; a file has others"]),
        ("profile.use = \"owm\"\n[profile.own]\n", &["profile is 'owm'", names]),
        ("profile.use = \"own\"\n[profile.own]\nslots = 0\n", &["profile.own.slots is '0'", "1 to 1048576"]),
    ] {
        let problems = config(&[], text).expect_err(text).to_string();
        for part in says {
            assert!(problems.contains(part), "{text} should say '{part}': {problems}");
        }
    }
    let problems = config(&[("profile", "owm")], "[profile.own]").expect_err("unknown").to_string();
    assert!(problems.contains("--profile is 'owm'") && problems.contains(names), "{problems}");
    // A file that can't be read may well have it.
    let problems = config(&[("profile", "own")], "[profile.own").expect_err("no TOML").0;
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_built_in_profile_goes_with_everything_that_somebody_gives() {
    let given: &[&[(&'static str, &str)]] = &[
        &[],
        &[("runtime", "docker"), ("replicas", "56"), ("max_replicas", "56"), ("min_replicas", "56")],
        &[("runtime", "static"), ("members", "a:1")],
        &[("runtime", "agent")],
        &[("policy", "maglev"), ("autoscale", "on")],
        &[("policy", "peak-ewma"), ("weights", "auto")],
    ];
    for profile in PROFILES {
        for flags in given {
            let mut flags = flags.to_vec();
            flags.push(("profile", profile.name));
            let config = Config::new(layers(&flags, &[], None), None);
            assert!(config.is_ok(), "{flags:?}: {config:?}");
        }
    }
    // What nobody starts can't be replaced; whoever asks for that hears it.
    let fixed = [("profile", "production"), ("runtime", "static"), ("members", "a:1")];
    assert!(Config::new(layers(&fixed, &[], None), None).unwrap().pilot.outliers.is_none());
    let asked = Config::new(layers(&fixed, &[("LB_OUTLIERS", "on")], None), None).expect_err("refused").to_string();
    assert!(asked.contains("LB_OUTLIERS is 'on'"), "{asked}");
}

#[test]
fn words_and_pairs_of_a_file_stay_what_they_are() {
    let words = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    let text = r#"
        runtime = "docker"
        replica_command = ["my-server", "--name", "a b, c", "it's", "", "--port", 5000]
        replica_env = { A = "1", B = "x,y", C = "", D = 4, E = "p=q" }
    "#;
    let template = config(&[], text).unwrap().fleet.template;
    assert_eq!(template.command, words(&["my-server", "--name", "a b, c", "it's", "", "--port", "5000"]));
    assert_eq!(template.env, pairs(&[("A", "1"), ("B", "x,y"), ("C", ""), ("D", "4"), ("E", "p=q")]));

    let text = "runtime = \"docker\"\nreplica_command = \"my-server 'a b'\"\nreplica_env = \"A=1,B=2\"";
    let template = config(&[], text).unwrap().fleet.template;
    assert_eq!((template.command, template.env), (words(&["my-server", "a b"]), pairs(&[("A", "1"), ("B", "2")])));

    let text = "server_command = [\"python3\", \"my app.py\", \"{port}\"]\nreplica_env = [\"A=x,y\", \"B=z=1\"]";
    let template = config(&[], text).unwrap().fleet.template;
    assert_eq!(template.command, words(&["python3", "my app.py", "{port}"]));
    assert_eq!(template.env, pairs(&[("A", "x,y"), ("B", "z=1")]));

    // A profile's table takes the place of the file's; and a text beats both.
    let text = "replica_env = { A = \"1\", B = \"2\" }\n[profile.own.replica_env]\nC = \"x,y\"\n[profile.none]\nreplica_env = {}";
    let env = |flags: &[(&'static str, &str)]| config(flags, text).unwrap().fleet.template.env;
    assert_eq!(env(&[]), pairs(&[("A", "1"), ("B", "2")]));
    assert_eq!(env(&[("profile", "own")]), pairs(&[("C", "x,y")]));
    assert_eq!(env(&[("profile", "none")]), pairs(&[]));
    assert_eq!(env(&[("profile", "own"), ("replica_env", "D=4")]), pairs(&[("D", "4")]));

    // Lists of other settings are what a text with commas is.
    let config = config(&[], "control_listen = \"127.0.0.1:0\"\ncontrol_ports = [53, \"20000-29999\"]");
    assert!(config.is_ok(), "{config:?}");
}

#[test]
fn words_and_pairs_that_can_not_be_are_refused() {
    for (text, says) in [
        ("replica_env = { A = [1] }", &["'replica_env' is (not shown)", "a table of texts and numbers"][..]),
        ("replica_env = [\"A\"]", &["'replica_env' is (not shown)", "[\"A=1\", \"B=x,y\"]"]),
        ("replica_env = { PORT = 1 }", &["replica_env is '(not shown)'", "names other than PORT"]),
        ("replica_env = { \"A=B\" = 1 }", &["replica_env is", "NAME=value"]),
        ("replica_env = { A = \"\\u0000\" }", &["replica_env is", "NAME=value"]),
        ("runtime = \"docker\"\nreplica_command = []", &["replica_command is ''", "a program and its arguments"]),
        ("replica_command = [[1]]", &["'replica_command' is [[1]]", "an array of texts and numbers"]),
        ("replica_command = { a = 1 }", &["'replica_command' is { a = 1 }", "an array of words"]),
        ("replica_command = [\"a\\u0000\"]", &["'replica_command' is", "without a NUL"]),
        ("slots = { a = 1 }", &["'slots' is { a = 1 }", "a text or a number"]),
    ] {
        let problems = config(&[], text).expect_err(text).to_string();
        for part in says {
            assert!(problems.contains(part), "{text} should say '{part}': {problems}");
        }
    }
}

#[test]
fn the_example_in_the_docs_is_good_with_each_profile() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ringkeeper.toml"));
    let read = |profile: &str| Config::new(layers(&[("profile", profile)], &[], Some(path)), None).unwrap();
    for (profile, replicas, nano_cpus, memory) in [
        ("production", 4, Some(1_000_000_000), Some(256 << 20)),
        ("development", 2, None, None),
        ("slim", 1, Some(250_000_000), Some(16 << 20)),
    ] {
        let config = read(profile);
        let template = &config.fleet.template;
        assert_eq!((config.fleet.replicas, template.nano_cpus, template.memory), (replicas, nano_cpus, memory));
        assert_eq!(template.image, "ringkeeper-server");
        assert_eq!(template.command, ["--title", "one, two and three"]);
        assert_eq!(config.fleet.heartbeat.path, "/heartbeat");
        assert!(matches!(&config.runtime, RuntimeConfig::Docker(docker) if docker.port == 5000));
    }
    let env = read("production").fleet.template.env;
    assert_eq!(env, pairs(&[("SERVICE_TIME", "2ms"), ("GREETING", "hello, world")]));
    assert!(read("production").log.json && read("development").log.filter.contains("debug"));
    let unsaid = Config::new(layers(&[], &[], Some(path)), None).unwrap();
    assert_eq!(unsaid.fleet.replicas, 4, "the file names production");
}
