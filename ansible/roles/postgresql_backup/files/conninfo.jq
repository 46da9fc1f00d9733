# Vault's answer in, a service file out: the connection string as libpq's service file wants it, one setting a line.
# No message repeats a value: one of them is the password.

def refuse($why): "the field conninfo of \($where) \($why)\n" | halt_error(1);

# libpq's own rules: key = value, the value in single quotes if it has spaces, \ before ' and \.
def key: "[a-z_]+";
def value: "'(?:[^'\\\\]|\\\\[\\s\\S])*'|(?:[^'\\s\\\\]|\\\\[\\s\\S])(?:[^\\s\\\\]|\\\\[\\s\\S])*|";
def unquoted: if startswith("'") then .[1:-1] else . end | gsub("\\\\(?<it>[\\s\\S])"; .it);
def settings: [scan("(\(key))\\s*=\\s*(\(value))(?:\\s+|$)") | {key: .[0], value: (.[1] // "" | unquoted)}];

.data.data.conninfo
| if type != "string" or . == "" then
    refuse("is missing: vault kv put … conninfo=- with host=… port=5432 user=… password=… sslmode=verify-full")
  elif test("^postgres(ql)?://") then
    refuse("is a URI; write it as host=… port=… user=… password=…")
  elif test("^\\s*(?:\(key)\\s*=\\s*(?:\(value))(?:\\s+|$))+$") | not then
    refuse("is no connection string: host=… port=… user=… password='…', with \\ before ' and \\")
  else . end
| settings
| map(select(.value | test("[\\r\\n]|\\s$"))) as $odd
| if $odd | length > 0 then
    refuse("has a line break in \($odd[0].key), or a space at its end, which a service file cannot hold: choose another")
  else . end
# Of a setting named twice a connection string means the last, a service file the first. How the source knows us, in
# pg_stat_replication, is not for Vault to say.
| [{key: "application_name", value: $service}]
  + reverse
  # A network that swallows packets is noticed in a minute, not after the kernel's hours: meanwhile no WAL arrives.
  + [{key: "connect_timeout", value: "10"}, {key: "keepalives_idle", value: "30"}, {key: "tcp_user_timeout", value: "60000"}]
| "[\($service)]", (.[] | "\(.key)=\(.value)")
