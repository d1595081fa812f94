/* By TLS the same requests get the same answers, TLS 1.1 is refused, and bytes that are not TLS end
 * the connection.
 *
 * The certificate is made by the openssl command; the client is OpenSSL's own. */
#include "server_rig.h"

#include <openssl/ssl.h>

static char cert_file[] = "http_tls_cert_XXXXXX";
static char key_file[] = "http_tls_key_XXXXXX";

static int make_certificate(void **state)
{
    char command[512];
    (void)state;
    int cert = mkstemp(cert_file);
    int key = mkstemp(key_file);
    assert_true(cert >= 0 && key >= 0);
    (void)close(cert);
    (void)close(key);
    (void)snprintf(command, sizeof(command),
                   "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
                   "-subj /CN=localhost -keyout %s -out %s 2>/dev/null",
                   key_file, cert_file);
    return system(command) == 0 ? 0 : -1; // NOLINT(cert-env33-c): our own fixed words
}

static int remove_certificate(void **state)
{
    (void)state;
    (void)unlink(cert_file);
    (void)unlink(key_file);
    return 0;
}

static void open_tls(void)
{
    struct http_options options = rig_defaults();
    options.tls_cert_file = cert_file;
    options.tls_key_file = key_file;
    rig_open(&options);
}

struct client {
    SSL_CTX *context;
    SSL *ssl;
    int fd;
};

static struct client connect_tls(int version_max)
{
    struct client client = {.fd = client_open()};
    client.context = SSL_CTX_new(TLS_client_method());
    assert_non_null(client.context);
    /* Level 0, or the library would not even offer what the server has to refuse. */
    SSL_CTX_set_security_level(client.context, 0);
    assert_int_equal(SSL_CTX_set_min_proto_version(client.context, TLS1_VERSION), 1);
    assert_int_equal(SSL_CTX_set_max_proto_version(client.context, version_max), 1);
    client.ssl = SSL_new(client.context);
    assert_non_null(client.ssl);
    assert_int_equal(SSL_set_fd(client.ssl, client.fd), 1);
    static const unsigned char protocols[] = "\x02h2\x08http/1.1";
    assert_int_equal(SSL_set_alpn_protos(client.ssl, protocols, sizeof(protocols) - 1), 0);
    return client;
}

static void close_client(struct client *client)
{
    SSL_free(client->ssl);
    SSL_CTX_free(client->context);
    (void)close(client->fd);
}

static void write_all(struct client *client, const void *bytes, size_t size)
{
    size_t sent = 0;
    assert_int_equal(SSL_write_ex(client->ssl, bytes, size, &sent), 1);
    assert_int_equal(sent, size);
}

/* Until the end of a body of `body_size` bytes; gives the whole. */
static char *read_whole(struct client *client, size_t body_size)
{
    char *bytes = mem_alloc(body_size + 4096);
    size_t size = 0;
    char *body = NULL;
    while (body == NULL || size < (size_t)(body - bytes) + 4 + body_size) {
        size_t got = 0;
        assert_int_equal(SSL_read_ex(client->ssl, bytes + size, body_size + 4095 - size, &got), 1);
        size += got;
        body = strstr(bytes, "\r\n\r\n");
    }
    return bytes;
}

static void check_round_trip(int version)
{
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n";
    struct client client = connect_tls(version);
    char *body = mem_alloc(300001);
    memset(body, 'x', 300000);
    assert_int_equal(SSL_connect(client.ssl), 1);
    assert_int_equal(SSL_version(client.ssl), version);
    const unsigned char *chosen = NULL;
    unsigned size = 0;
    SSL_get0_alpn_selected(client.ssl, &chosen, &size);
    assert_true(slice_equal(slice_make(chosen, size), SLICE_LITERAL("http/1.1")));
    for (uint32_t i = 0; i < 3; i++) {
        write_all(&client, head, sizeof(head) - 1);
        write_all(&client, body, 300000);
        char *answer = read_whole(&client, 300000);
        assert_memory_equal(answer, "HTTP/1.1 200 OK\r\n", 17);
        assert_string_equal(strstr(answer, "\r\n\r\n") + 4, body);
        mem_free(answer);
    }
    /* Closed by the server: the client is told by TLS, not only by TCP. */
    static const char last[] = "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    write_all(&client, last, sizeof(last) - 1);
    char *answer = read_whole(&client, 5);
    mem_free(answer);
    size_t got = 0;
    assert_int_equal(SSL_read_ex(client.ssl, body, 1, &got), 0);
    assert_int_equal(SSL_get_error(client.ssl, 0), SSL_ERROR_ZERO_RETURN);
    mem_free(body);
    close_client(&client);
}

static void test_round_trips(void **state)
{
    (void)state;
    open_tls();
    check_round_trip(TLS1_2_VERSION);
    check_round_trip(TLS1_3_VERSION);
    rig_close();
}

static void test_stream(void **state)
{
    static const char request[] = "GET /stream?n=5000000 HTTP/1.0\r\n\r\n";
    char bytes[16384];
    size_t total = 0;
    size_t got = 0;
    (void)state;
    open_tls();
    struct client client = connect_tls(TLS1_3_VERSION);
    assert_int_equal(SSL_connect(client.ssl), 1);
    write_all(&client, request, sizeof(request) - 1);
    while (SSL_read_ex(client.ssl, bytes, sizeof(bytes), &got) == 1) {
        total += got;
    }
    assert_int_equal(SSL_get_error(client.ssl, 0), SSL_ERROR_ZERO_RETURN);
    assert_true(total > 5000000 && total < 5001000);
    close_client(&client);
    rig_close();
}

static void test_what_is_refused(void **state)
{
    (void)state;
    open_tls();
    struct client client = connect_tls(TLS1_1_VERSION);
    assert_true(SSL_connect(client.ssl) != 1);
    close_client(&client);
    int fd = client_open();
    client_send_text(fd, GET_HELLO);
    char bytes[256];
    ssize_t size = 1;
    while (size > 0) {
        size = client_read(fd, bytes, sizeof(bytes)); /* an alert may come first */
    }
    (void)close(fd);
    check_round_trip(TLS1_3_VERSION); /* others are served on */
    rig_close();
    assert_int_equal(rig.heads, 4);
}

static void test_key_that_does_not_fit(void **state)
{
    struct http_options options = rig_defaults();
    struct http_server *server = NULL;
    struct err_detail detail = {""};
    (void)state;
    options.tls_cert_file = cert_file;
    options.tls_key_file = cert_file;
    assert_int_equal(http_server_open(&server, &options, &detail), ERR_CONFIG);
    assert_non_null(strstr(detail.text, "load key"));
    options.tls_key_file = NULL;
    assert_int_equal(http_server_open(&server, &options, &detail), ERR_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_key_that_does_not_fit),
    };
    return cmocka_run_group_tests(tests, make_certificate, remove_certificate);
}
