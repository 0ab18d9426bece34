"Made-up values in the forms of the usual kinds of secrets, put together here so that no text holds one."
import base64
import random

_GIVEN = random.Random(7)
LOWER, UPPER, DIGITS, HEX = 'abcdefghijklmnopqrstuvwxyz', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', '0123456789', '0123456789abcdef'
ALL = LOWER+UPPER+DIGITS


def some(n, letters=ALL):
    "n characters, a digit and a letter among them if there are any."
    return (letters[-1]+letters[0]+''.join(_GIVEN.choice(letters) for _ in range(n)))[:n]


def block(kind, lines=6):
    body = '\n'.join(some(64, ALL+'+/') for _ in range(lines))
    return f'-----BEGIN {kind}-----\n{body}\n-----END {kind}-----'


def basic(text): return base64.b64encode(text.encode()).decode()


KINDS = {  # name -> (text around it, the secret itself)
    kind: (around.replace('@@', secret), secret) for kind, around, secret in [
        ('AWS access key', 'id @@ here', 'AKIA'+some(16, DIGITS+UPPER)),
        ('AWS temporary key', 'id @@ here', 'ASIA'+some(16, DIGITS+UPPER)),
        ('AWS secret key', 'aws_secret_access_key = @@', some(40, ALL+'+/')),
        ('AWS session token', 'AWS_SESSION_TOKEN=@@', some(120, ALL+'+/')),
        ('GitHub token', 'use @@ now', 'ghp_'+some(36)),
        ('GitHub OAuth', 'use @@ now', 'gho_'+some(36)),
        ('GitHub app', 'use @@ now', 'ghs_'+some(36)),
        ('GitHub fine-grained', 'use @@ now', 'github_pat_'+some(22)+'_'+some(59)),
        ('GitLab token', 'use @@ now', 'glpat-'+some(20)),
        ('GitLab runner', 'use @@ now', 'glrt-'+some(20)),
        ('Bitbucket', 'use @@ now', 'ATBB'+some(32)),
        ('Atlassian', 'use @@ now', 'ATATT3'+some(180)+'='+some(8, HEX)),
        ('Slack bot', 'use @@ now', 'xoxb-'+some(12, DIGITS)+'-'+some(12, DIGITS)+'-'+some(24)),
        ('Slack app', 'use @@ now', 'xapp-1-A'+some(10, DIGITS+UPPER)+'-'+some(13, DIGITS)+'-'+some(64, HEX)),
        ('Slack webhook', 'post to https://@@', 'hooks.slack'+'.com/services/T'+some(8, DIGITS+UPPER)+'/B'+some(8, DIGITS+UPPER)+'/'+some(24)),
        ('Stripe live', 'use @@ now', 'sk_'+'live_'+some(24)),
        ('Stripe restricted', 'use @@ now', 'rk_'+'live_'+some(24)),
        ('Stripe test', 'use @@ now', 'sk_'+'test_'+some(24)),
        ('Stripe webhook', 'use @@ now', 'whsec_'+some(32)),
        ('Google key', 'use @@ now', 'AIza'+some(35)),
        ('Google OAuth secret', 'use @@ now', 'GOCSPX-'+some(28)),
        ('Google OAuth token', 'use @@ now', 'ya29.'+some(80)),
        ('Google service account', '{"type": "service_account", "private_key": "@@"}', block('PRIVATE'+' KEY').replace('\n', '\\n')),
        ('Azure storage', 'AccountName=x;AccountKey=@@;EndpointSuffix=y', some(86, ALL+'+/')+'=='),
        ('Azure signature', 'https://x.blob.core.example/c?sv=2024&sig=@@', some(43)+'%3D'),
        ('Azure client secret', 'use @@ now', some(3)+'8Q~'+some(34)),
        ('Anthropic', 'use @@ now', 'sk-ant-'+'api03-'+some(93)+'AA'),
        ('OpenAI', 'use @@ now', 'sk-'+some(20)+'T3BlbkFJ'+some(20)),
        ('OpenAI project', 'use @@ now', 'sk-proj-'+some(100)),
        ('Hugging Face', 'use @@ now', 'hf_'+some(34)),
        ('Replicate', 'use @@ now', 'r8_'+some(37)),
        ('Groq', 'use @@ now', 'gsk_'+some(52)),
        ('xAI', 'use @@ now', 'xai-'+some(80)),
        ('Perplexity', 'use @@ now', 'pplx-'+some(48)),
        ('Cohere in a variable', 'CO_API_KEY=@@', some(40)),
        ('Mistral in a variable', 'export MISTRAL_API_KEY="@@"', some(32)),
        ('Twilio', 'use @@ now', 'SK'+some(32, HEX)),
        ('SendGrid', 'use @@ now', 'SG.'+some(22)+'.'+some(43)),
        ('Mailgun', 'use @@ now', 'key-'+some(32, HEX)),
        ('Mailchimp', 'use @@ now', some(32, HEX)+'-us12'),
        ('npm', '//registry.example/:_authToken=@@', 'npm_'+some(36)),
        ('PyPI', 'use @@ now', 'pypi-'+'AgEIcHlwaS5vcmc'+some(60)),
        ('RubyGems', 'use @@ now', 'rubygems_'+some(48, HEX)),
        ('Docker', 'use @@ now', 'dckr_pat_'+some(27)),
        ('Docker login', '{"auths": {"registry.example": {"auth": "@@"}}}', basic('ada:s3cret-of-ada')),
        ('DigitalOcean', 'use @@ now', 'dop_v1_'+some(64, HEX)),
        ('Heroku in a variable', 'HEROKU_API_KEY=@@', '-'.join(some(n, HEX) for n in (8, 4, 4, 4, 12))),
        ('Cloudflare in a variable', 'CLOUDFLARE_API_TOKEN: @@', some(40)),
        ('Shopify', 'use @@ now', 'shpat_'+some(32, HEX)),
        ('Square', 'use @@ now', 'sq0atp-'+some(22)),
        ('Braintree', 'use @@ now', 'access_token$'+'production$'+some(16, LOWER+DIGITS)+'$'+some(32, HEX)),
        ('Telegram', 'use @@ now', some(10, DIGITS)+':AA'+some(33)),
        ('Discord', 'use @@ now', 'M'+some(23)+'.'+some(6)+'.'+some(38)),
        ('Discord webhook', 'post to https://@@', 'discord'+'.com/api/webhooks/'+some(18, DIGITS)+'/'+some(68)),
        ('Facebook', 'use @@ now', 'EAACEdEose0cBA'+some(80)),
        ('Twitter bearer', 'use @@ now', 'A'*22+some(80)),
        ('Datadog in a variable', 'DD_API_KEY=@@', some(32, HEX)),
        ('New Relic', 'use @@ now', 'NRAK-'+some(27, DIGITS+UPPER)),
        ('Sentry', 'use @@ now', 'sntrys_'+some(80)),
        ('Databricks', 'use @@ now', 'dapi'+some(32, HEX)),
        ('Postman', 'use @@ now', 'PMAK-'+some(24, HEX)+'-'+some(34, HEX)),
        ('Linear', 'use @@ now', 'lin_api_'+some(40)),
        ('Notion', 'use @@ now', 'ntn_'+some(46)),
        ('Airtable', 'use @@ now', 'pat'+some(14)+'.'+some(64, HEX)),
        ('Figma', 'use @@ now', 'figd_'+some(40)),
        ('Vault', 'use @@ now', 'hvs.'+some(90)),
        ('Terraform', 'use @@ now', some(14)+'.atlasv1.'+some(67)),
        ('Grafana', 'use @@ now', 'glsa_'+some(32)+'_'+some(8, HEX)),
        ('Doppler', 'use @@ now', 'dp.pt.'+some(43)),
        ('PlanetScale', 'use @@ now', 'pscale_tkn_'+some(43)),
        ('Supabase', 'use @@ now', 'sbp_'+some(40, HEX)),
        ('JSON web token', 'use @@ now', 'eyJ'+some(30)+'.eyJ'+some(60)+'.'+some(43)),
        ('RSA key', '@@', block('RSA PRIVATE'+' KEY')),
        ('EC key', '@@', block('EC PRIVATE'+' KEY')),
        ('OpenSSH key', '@@', block('OPENSSH PRIVATE'+' KEY')),
        ('encrypted key', '@@', block('ENCRYPTED PRIVATE'+' KEY')),
        ('PGP key', '@@', block('PGP PRIVATE'+' KEY BLOCK')),
        ('age key', 'use @@ now', 'AGE-SECRET'+'-KEY-1'+some(58, DIGITS+UPPER)),
        ('password in an address', 'postgres://app:@@@db.example:5432/app', 'S3cr3t-'+some(8)),
        ('password without a name', 'redis://:@@@cache.example:6379', some(24)),
        ('token in an address', 'https://@@@git.example/a.git', some(40)),
        ('?token=', 'https://x.example/a?user=1&token=@@', some(32)),
        ('?api_key=', 'https://x.example/a?api_key=@@&q=1', some(32)),
        ('?access_token=', 'https://x.example/a?access_token=@@', some(40)),
        ('key as a model', 'http://localhost:8080/v1#@@', some(40)),
        ('Basic', 'Authorization: Basic @@', basic('ada:correct horse 7')),
        ('Bearer', 'Authorization: Bearer @@', some(40)),
        ('x-api-key', 'x-api-key: @@', some(32)),
        ('variable of any service', 'MYSERVICE_API_KEY=@@', some(32)),
        ('client secret', '"client_secret": "@@"', some(40)),
        ('password in a file', 'DB_PASSWORD=@@', 'Tr0ub4dor&3x'),
        ('password in code', 'password = "@@"', 'Tr0ub4dor&3x'),
        ('.netrc', 'machine x.example login ada password @@', 'Tr0ub4dor&3x'),
    ]}
